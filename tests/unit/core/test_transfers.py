"""Between host and device: numbers of True entries whose count is known, and copies to and fro."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unival.core.transfers import numbers_of, to_device, to_host


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_numbers_of_true_entries(share: float) -> None:
    mask = torch.rand(50, generator=torch.Generator().manual_seed(1)) < share
    wanted = mask.nonzero().squeeze(1)
    found = numbers_of(mask, len(wanted))
    assert found.dtype == torch.int64 and torch.equal(found, wanted)


def test_a_wrong_count_never_names_another_entry() -> None:
    mask = torch.tensor([True, False, True])
    with pytest.raises(IndexError):
        torch.zeros(3)[numbers_of(mask, 3)]  # one too many
    with pytest.raises(RuntimeError, match="out of bounds"):
        numbers_of(mask, 1)


def test_numbers_to_a_device_and_back() -> None:
    numbers = np.arange(12).reshape(3, 4)[:, 1]  # not one piece of memory
    there = to_device(numbers, "cpu")
    assert there.tolist() == [1, 5, 9] and to_host(there).tolist() == [1, 5, 9]
