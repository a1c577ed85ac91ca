"""Between the host and a device without stops.

A stop is a question that the host asks a GPU (``x.item()``, ``if x.any()``, ``x.nonzero()``, ``x[mask]``): it waits
until all work handed over so far is done, and the device then waits for the host. On a CPU nothing here copies.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def numbers_of(mask: Tensor, count: int) -> Tensor:
    """Return the numbers (count,) int64 of the True entries of ``mask`` (N,) bool, in order, where the host knows how
    many there are. (``nonzero`` asks the device.) A wrong count makes whoever indexes with them fail."""
    entries = torch.arange(mask.numel(), device=mask.device)
    # place 0 takes the False entries and is dropped; too many True ones end behind the last place
    places = torch.where(mask, mask.cumsum(0), 0)
    numbers = entries.new_full((count + 1,), mask.numel())
    return numbers.scatter_(0, places, entries)[1:]


def to_host(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers on the host: the one stop of who needs them."""
    return tensor.detach().cpu().numpy()


def to_device(numbers: np.ndarray, device: torch.device | str) -> Tensor:
    """Return numbers of the host on a device; the copy to a GPU takes its place in the line, nobody waits for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(numbers))
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
