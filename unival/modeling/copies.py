"""Second copies of weights, in the form in which oneDNN reads them, for searches.

A copy stays from search to search while its weights stay what they are, and goes with them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

Made = TypeVar("Made")
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16}  # by their bytes


class Copy(Generic[Made]):
    """What is known of one product's weights: how often they were used, and a copy with what they were then."""

    def __init__(self) -> None:
        self.uses = 0
        self.made: Made | None = None
        self._of: list[tuple[int, int, Tensor]] = []
        self._refused = False

    def of(self, weights: Sequence[Tensor]) -> bool:
        """Whether the weights are still what was copied; True where nothing was."""
        return not self._of or all(map(_same, self._of, weights))

    def used(self, weights: Sequence[Tensor], make: Callable[[], Made], after: int = 0) -> Made | None:
        """Count a use; return the copy, which the first use after ``after`` others makes."""
        self.uses += 1
        if self.made is None and self.uses > after and not self._refused:
            with _lock:
                if self.made is None:
                    self._make(weights, make)
        return self.made

    def _make(self, weights: Sequence[Tensor], make: Callable[[], Made]) -> None:
        try:
            self._of = [_fingerprint(weight) for weight in weights]
            self.made = make()
        except RuntimeError:  # no memory for it, or no such kernel; what it stands for needs neither
            self._of, self._refused = [], True


Copies = WeakIdKeyDictionary  # of a search, in which weights do not change: weight -> Copy
_lock = threading.Lock()
_copies = Copies()


def copy_of(weights: Sequence[Tensor], copies: Copies) -> Copy | None:
    """Return what is known of a product's weights, the first of which is its own; None where they cannot be followed.

    ``copies``: empty at the start of a search. The weights are compared with what was copied once in it: optimizers and
    averages write into weights in ways that leave no trace on the tensor. They change sums of its bits; who moves
    numbers within a row, or flips pairs of signs, through ``.data`` has to :func:`release`.
    """
    own = weights[0]
    found: Copy | None = copies.get(own)
    if found is None:
        if not all(map(_followed, weights)):
            return None
        with _lock:
            found = _copies.get(own)
        if found is None or not found.of(weights):
            found = Copy()
            with _lock:
                _copies[own] = found
        copies[own] = found
    return found


def onednn_has(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in a type on this processor."""
    in_half = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bool(in_half)


def release() -> None:
    """Give the copies' memory back: their weights are about to change."""
    with _lock:
        _copies.clear()


def _followed(weight: Tensor) -> bool:
    """Whether the weight can be read by words, and torch counts its changes."""
    return weight.is_contiguous() and not weight.is_inference() and _word(weight) is not None


def _word(weight: Tensor) -> torch.dtype | None:
    """The largest type by which each row, or a vector's number, can be read."""
    size = weight.element_size()
    row = weight[0].numel() * size if weight.dim() > 1 else size
    places = (row, weight.storage_offset() * size)
    return next((word for width, word in _WORDS.items() if not any(p % width for p in places)), None)


def _fingerprint(weight: Tensor) -> tuple[int, int, Tensor]:
    """Where a weight lies, how often torch saw it change, and the sums int64 of its rows' bits; a vector itself."""
    place, changes, weight = weight.data_ptr(), weight._version, weight.detach()
    if weight.dim() == 1:
        return place, changes, weight.clone()
    word = _word(weight)
    assert word is not None
    return place, changes, weight.flatten(1).view(word).sum(1, dtype=torch.int64)


def _same(known: tuple[int, int, Tensor], weight: Tensor) -> bool:
    if (weight.data_ptr(), weight._version) != known[:2]:
        return False
    return torch.equal(known[2], weight if weight.dim() == 1 else _fingerprint(weight)[2])
