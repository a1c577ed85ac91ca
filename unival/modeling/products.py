"""Linear layers whose products, in generation, are those that the processor at hand computes fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.core.device import cpu_vendor

FEW_ROWS = 8  # with 17, the turned product is slower than torch's own


# torch's own choices for float32 are slow on AMD alone: MKL reads the weights of few rows at a third of what memory
# gives, and feature maps keep their order. On Intel the other way does not gain (docs/performance.md).
TORCH_IS_SLOW = cpu_vendor() == "AuthenticAMD" and hasattr(torch.ops.mkldnn, "_linear_pointwise")


# Only what ends in tokens: logits and losses that are compared with the reference's keep its sums to the last digits.
_generating: ContextVar[bool] = ContextVar("generating", default=False)


@contextmanager
def generating() -> Iterator[None]:
    """Allow the processor's own way for the block, in this thread."""
    token = _generating.set(True)
    try:
        yield
    finally:
        _generating.reset(token)


def own_way(x: Tensor) -> bool:
    """Whether ``x`` is float32 on a processor of AMD, in a generation and without gradients."""
    return (
        _generating.get()
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and TORCH_IS_SLOW
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., K) times weight (N, K) plus bias (N) -> (..., N); values equal to rounding whatever the way."""
    rows = x.numel() // x.size(-1)
    if not rows or not own_way(x) or weight.dtype != x.dtype:
        return F.linear(x, weight, bias)
    if rows > FEW_ROWS or weight.size(0) < weight.size(1):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    few = x.reshape(rows, -1).t()
    turned = weight @ few if bias is None else torch.addmm(bias[:, None], weight, few)
    return turned.t().reshape(*x.shape[:-1], weight.size(0))


class Linear(nn.Linear):
    """torch's, by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
