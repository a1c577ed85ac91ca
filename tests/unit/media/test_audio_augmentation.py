"""SpecAugment leaves most of a clip, however coarse its spectrogram."""

from __future__ import annotations

import pytest
import torch

from unival.modeling.audio import spec_augment


@pytest.mark.parametrize("frames", [8, 75, 512, 2401])
def test_two_time_stripes_leave_three_quarters_of_a_clip(frames: int) -> None:
    torch.manual_seed(0)
    kept = spec_augment(torch.ones(200, 1, frames, 64)).amax(dim=(1, 3)).mean(dim=1)
    assert kept.min() >= 0.75
    if frames >= 75:
        assert kept.min() < 1.0, "nothing was masked"


def test_long_clips_get_the_reference_width() -> None:
    torch.manual_seed(0)
    masked = (spec_augment(torch.ones(400, 1, 2401, 64), stripes=1).amax(dim=(1, 3)) == 0).sum(dim=1)
    assert 55 < masked.max() < 64
