"""Maps behind a norm and its ReLU, made again in the backward pass instead of being kept for it.

A third of what a ResNet keeps in training are such maps, and the convolution's own maps, which the norm keeps anyway,
hold all that they are made of. Gradients are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)  # a SyncBatchNorm's statistics are also those of other processes
LEAST = 2**20  # bytes of maps that are worth it


class _Count(NamedTuple):
    see: Callable[[Tensor], Tensor]
    device: str


_count: ContextVar[_Count | None] = ContextVar("count", default=None)


@contextmanager
def counting(see: Callable[[Tensor], Tensor], device: str) -> Iterator[None]:
    """Show ``see`` all that autograd keeps in the block. Tensors without content go the ways of ``device``, "cpu" or
    "cuda"."""
    token = _count.set(_Count(see, device))
    try:
        with torch.autograd.graph.saved_tensors_hooks(see, _as_it_is):
            yield
    finally:
        _count.reset(token)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def plain(module: nn.Module | None, types: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module's forward pass is that of its type: hooks, types and methods of others are somebody's own."""
    if module is None or type(module) not in types or "forward" in module.__dict__:
        return False
    return not module._forward_hooks and not module._forward_pre_hooks


def remakes(norm: nn.Module, x: Tensor) -> bool:
    """Whether maps of the norm should be made again: in training on a CPU, where they are large (on GPUs it was not
    measured)."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    count = _count.get()
    if (count.device if x.is_meta and count is not None else x.device.type) != "cpu":
        return False
    if x.nbytes < LEAST or torch.is_autocast_enabled("cpu") or not plain(norm, NORMS):
        return False
    own = cast(Any, norm)
    return bool(x.requires_grad and own.affine and own.track_running_stats and own.momentum is not None)


def remade(norm: nn.Module, x: Tensor, use: Callable[[Tensor], Tensor]) -> Tensor:
    """``use(relu(norm(x)))`` for x (B, C, *grid), which keeps ``x`` alone."""
    maps, again = _normed(cast(nn.BatchNorm2d, norm), x)
    standing = _Standing(maps, again)
    with torch.autograd.graph.saved_tensors_hooks(standing.kept, standing.needed):
        return use(maps.relu_())


def _normed(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """``norm(x)``, and what makes it once more without a gradient."""
    seen, weight, bias = x.detach(), norm.weight, norm.bias
    running = (norm.running_mean, norm.running_var)
    if not norm.training:
        return norm(x), lambda: F.batch_norm(seen, *running, weight, bias, False, 0.0, norm.eps)
    assert norm.num_batches_tracked is not None and norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    # as the norm itself does, which does not tell the statistics
    maps, mean, spread = torch.native_batch_norm(x, weight, bias, *running, True, norm.momentum, norm.eps)
    # A deviation of 1 leaves the scale as it is given: torch's own product of weight and 1 / deviation. Adding up the
    # statistics again would take ten times as long.
    one = torch.ones_like(mean)
    return maps, lambda: F.batch_norm(seen, mean, one, weight * spread, bias, False, 0.0, 0.0)


class _Standing:
    """What stands for the maps among the tensors that autograd keeps."""

    def __init__(self, maps: Tensor, again: Callable[[], Tensor]) -> None:
        self.again = again
        self.storage, self.shape, self.strides = maps.untyped_storage()._cdata, maps.shape, maps.stride()
        self.count = _count.get()
        self.uses = self.left = 0
        self.maps: Tensor | None = None

    def kept(self, tensor: Tensor) -> Tensor | None:
        same = tensor.untyped_storage()._cdata == self.storage and tensor.shape == self.shape
        if not same or tensor.stride() != self.strides:
            return tensor if self.count is None else self.count.see(tensor)
        self.uses += 1
        return None

    def needed(self, tensor: Tensor | None) -> Tensor:
        if tensor is not None:
            return tensor
        if self.maps is None:
            with torch.no_grad():
                self.maps, self.left = self.again().relu_(), self.uses
        maps = self.maps
        self.left -= 1
        if not self.left:
            self.maps = None
        return maps
