"""Two channels to one: to the bit numpy's mean in double precision, whatever the samples and their layout."""

from __future__ import annotations

import numpy as np
import pytest

from unival.media.audio import mono

SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.1]


@pytest.mark.parametrize("channels_first", [False, True])
def test_the_mean_of_two_channels(channels_first: bool) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, (5000, 2), dtype=np.uint64).astype(np.uint32)
    pairs = np.array(np.meshgrid(SPECIAL, SPECIAL), np.float32).reshape(2, -1).T
    block = np.concatenate([pairs, bits.view(np.float32)])
    block = np.asfortranarray(block) if channels_first else np.ascontiguousarray(block)
    with np.errstate(all="ignore"):
        expected, got = block.mean(axis=1, dtype=np.float64).astype(np.float32), mono(block)
    number = ~np.isnan(expected)
    assert np.array_equal(number, ~np.isnan(got)) and got.dtype == np.float32
    assert np.array_equal(np.signbit(expected[number]), np.signbit(got[number]))
    assert np.array_equal(expected[number], got[number])
