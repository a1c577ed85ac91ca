"""Linear layers whose products, in generation, are those that the processor at hand computes fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.core.device import cpu_vendor
from unival.modeling.copies import Copies
from unival.modeling.packing import few_rows, packed

Way = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]


def of_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """oneDNN's product; ``weight`` may be packed."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def on_amd(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    """oneDNN, two rows as (W x')': MKL reads the weights at a third of what memory gives."""
    if rows != 2 or weight.size(0) < weight.size(1):
        return of_onednn(x, weight, bias)
    few = x.reshape(rows, -1).t()
    turned = weight @ few if bias is None else torch.addmm(bias[:, None], weight, few)
    return turned.t().reshape(*x.shape[:-1], weight.size(0))


def on_intel(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    """MKL."""
    return F.linear(x, weight, bias)


# Float32 products that gain nothing from packing. Figures: docs/performance.md, "Generation on a CPU".
WAYS: dict[str, Way] = {"AuthenticAMD": on_amd, "GenuineIntel": on_intel}
# The way of the processor at hand; None where all of it is torch's.
WAY = WAYS.get(cpu_vendor()) if hasattr(torch.ops.mkldnn, "_linear_pointwise") else None


# Only what ends in tokens: logits and losses that are compared with the reference's keep its sums to the last digits.
_search: ContextVar[Copies | None] = ContextVar("search", default=None)


@contextmanager
def generating() -> Iterator[None]:
    """Allow the processor's own way for the block, a search, in this thread; weights stay what they are in it."""
    token = _search.set(Copies())
    try:
        yield
    finally:
        _search.reset(token)


def search_copies(x: Tensor) -> Copies | None:
    """The copies of the search that ``x`` is of: on a CPU with a way of its own, without gradients."""
    copies = _search.get()
    if (
        copies is None
        or WAY is None
        or torch.is_grad_enabled()
        or x.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
    ):
        return None
    return copies


def own_way(x: Tensor) -> bool:
    """Whether ``x`` is float32 on a CPU with a way of its own, in a generation and without gradients."""
    return x.dtype == torch.float32 and search_copies(x) is not None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., K) times weight (N, K) plus bias (N) -> (..., N); values equal to rounding whatever the way."""
    rows = x.numel() // x.size(-1)
    copies = search_copies(x)
    if copies is None or WAY is None or not rows or weight.dtype != x.dtype:
        return F.linear(x, weight, bias)
    if few_rows(weight, rows):
        return of_onednn(x, packed(weight, rows, copies), bias)
    return WAY(x, weight, bias, rows) if x.dtype == torch.float32 else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """torch's, by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
