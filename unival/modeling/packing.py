"""Second copies of large weights, in the order in which oneDNN reads them for products of few rows.

Without one, oneDNN turns a weight around on the way into every product, which takes longer than reading it. A copy pays
after eight to sixteen products, and a search makes one for each token; so copies come with use, stay from search to
search while their weights stay what they are, and go with them. oneDNN's products are the same bits with a copy and
without.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

NUMBERS = 2**19  # of a weight: smaller ones stay in a core's own cache
ROWS = 128  # at most: with more, the product itself takes the time
# Rows at least: with fewer, oneDNN has another kernel, which gains nothing.
LEAST = {torch.float32: 3, torch.bfloat16: 1}
USES = 4  # for each byte of a number: products that cost together what making a copy does
_WORD = 8  # bytes


class Copy:
    """What is known of one weight (N, K): products so far, and its copy with what the weight was then."""

    def __init__(self) -> None:
        self.uses = 0
        self.packed: Tensor | None = None
        self._of: tuple[int, int, Tensor] | None = None
        self._refused = False

    def of(self, weight: Tensor) -> bool:
        """Whether the weight is still what was copied; True where nothing was."""
        if self._of is None:
            return True
        place, changes, sums = _fingerprint(weight)
        return (place, changes) == self._of[:2] and torch.equal(sums, self._of[2])

    def used(self, weight: Tensor, rows: int) -> Tensor | None:
        """Count a product; return the copy, once there is one."""
        self.uses += 1
        if self.packed is None and self.uses > USES * weight.element_size() and not self._refused:
            with _lock:
                if self.packed is None:
                    self._make(weight, rows)
        return self.packed

    def _make(self, weight: Tensor, rows: int) -> None:
        try:
            self._of = _fingerprint(weight)
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        except RuntimeError:  # no memory for it; the product itself needs none
            self._of, self._refused = None, True


Copies = WeakIdKeyDictionary  # of a search, in which weights do not change: weight -> Copy
_lock = threading.Lock()
_copies = Copies()


def few_rows(weight: Tensor, rows: int) -> bool:
    """Whether a product of ``rows`` rows with a weight (N, K) on a CPU gains from a copy."""
    least = LEAST.get(weight.dtype)
    return (
        least is not None
        and least <= rows <= ROWS
        and weight.numel() >= NUMBERS
        and (weight.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def packed(weight: Tensor, rows: int, copies: Copies) -> Tensor:
    """Return a weight for such a product: its copy where there is one, itself where not (yet).

    ``copies``: empty at the start of a search. The weight is compared with what was copied once in it: optimizers and
    averages write into weights in ways that leave no trace on the tensor. They change sums of its bits; who moves
    numbers within a row, or flips pairs of signs, through ``.data`` has to :func:`release`.
    """
    if not _readable(weight):
        return weight
    copy: Copy | None = copies.get(weight)
    if copy is None:
        with _lock:
            copy = _copies.get(weight)
        if copy is None or not copy.of(weight):
            copy = Copy()
            with _lock:
                _copies[weight] = copy
        copies[weight] = copy
    found = copy.used(weight, rows)
    return weight if found is None else found


def release() -> None:
    """Give the copies' memory back: their weights are about to change."""
    with _lock:
        _copies.clear()


def _readable(weight: Tensor) -> bool:
    """Whether the weight can be read by words, and torch counts its changes."""
    size = weight.element_size()
    words = not weight.size(1) * size % _WORD and not weight.storage_offset() * size % _WORD
    return words and weight.is_contiguous() and not weight.is_inference()


def _fingerprint(weight: Tensor) -> tuple[int, int, Tensor]:
    """Where a weight lies, how often torch saw it change, and the sums (N,) int64 of its rows' bits."""
    weight = weight.detach()
    return weight.data_ptr(), weight._version, weight.view(torch.int64).sum(1)
