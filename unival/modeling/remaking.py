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
# By dimensions: the order of maps and weights with the channels innermost.
INNERMOST = {4: torch.channels_last, 5: torch.channels_last_3d}


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
        with torch.autograd.graph.saved_tensors_hooks(see, unchanged):
            yield
    finally:
        _count.reset(token)


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


def plain(module: nn.Module | None, types: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module's passes are those of its type: hooks, types and methods of others are somebody's own."""
    if module is None or type(module) not in types or "forward" in module.__dict__:
        return False
    forward = module._forward_hooks or module._forward_pre_hooks
    return not (forward or module._backward_hooks or module._backward_pre_hooks)


def remakes(norm: nn.Module, x: Tensor) -> bool:
    """Whether maps of the norm should be made again: in training on a CPU, where they are large (on GPUs it was not
    measured) and nobody else looks at what autograd keeps."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    count = _count.get()
    if (count.device if x.is_meta and count is not None else x.device.type) != "cpu":
        return False
    if x.nbytes < LEAST or torch.is_autocast_enabled("cpu") or not plain(norm, NORMS):
        return False
    own = cast(Any, norm)
    if not (x.requires_grad and own.affine and own.track_running_stats and own.momentum is not None):
        return False
    # Statistics in half precision are rounded before anybody sees them; other orders of maps are torch's own.
    exact = x.is_meta or own.weight.dtype in (torch.float32, torch.float64)
    dense = x.is_contiguous() or x.is_contiguous(memory_format=INNERMOST[x.dim()])
    return bool(exact and dense and x.numel() > x.size(1)) and not _watched(count)


def _watched(count: _Count | None) -> bool:
    """Whether hooks of somebody else, on every module or on what autograd keeps, or torch.func would miss what they
    ask for: only the innermost hooks are called."""
    if getattr(nn.modules.module, "_has_any_global_hook", lambda: False)():
        return True
    try:
        autograd = cast(Any, torch._C._autograd)
        if torch._C._are_functorch_transforms_active() or not autograd._saved_tensors_hooks_is_enabled():
            return True
        top = autograd._top_saved_tensors_default_hooks(True)
    except (AttributeError, TypeError):  # a torch that does not tell
        return True
    return top is not None and (count is None or top[0] is not count.see)


def remade(norm: nn.Module, x: Tensor, use: Callable[[Tensor], Tensor]) -> Tensor:
    """``use(relu(norm(x)))`` for x (B, C, *grid), which keeps ``x`` alone.

    As with torch's own, the backward pass raises RuntimeError where maps or weights were changed in place since.
    """
    maps, again = _normed(cast(nn.BatchNorm2d, norm), x)
    standing = _Standing(maps, again)
    with torch.autograd.graph.saved_tensors_hooks(standing.kept, standing.needed):
        maps = maps.relu_()
        version = maps._version
        result = use(maps)
    standing.changed = maps._version != version
    return result


def _normed(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """``norm(x)``, and what makes it once more without a gradient, from numbers that stay what they are."""
    norm._check_input_dim(x)
    seen, weight, shift = x.detach(), norm.weight, norm.bias.detach().clone()
    running = (norm.running_mean, norm.running_var)
    if not norm.training:
        assert norm.running_mean is not None and norm.running_var is not None
        known = (norm.running_mean.clone(), norm.running_var.clone(), weight.detach().clone())
        eps = norm.eps
        return norm(x), lambda: F.batch_norm(seen, *known, shift, False, 0.0, eps)
    assert norm.momentum is not None
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    # as the norm itself does, which does not tell the statistics
    maps, mean, spread = torch.native_batch_norm(
        x, weight, norm.bias, *running, True, norm.momentum, norm.eps
    )
    # A deviation of 1 leaves the scale as it is given: torch's own product of weight and 1 / deviation. Adding up the
    # statistics again would take ten times as long.
    mean, scale = mean.detach(), (weight * spread).detach()
    return maps, lambda: F.batch_norm(seen, mean, torch.ones_like(mean), scale, shift, False, 0.0, 0.0)


class _Standing:
    """What stands for the maps among the tensors that autograd keeps."""

    def __init__(self, maps: Tensor, again: Callable[[], Tensor]) -> None:
        self.again = again
        self.storage, self.shape, self.strides = maps.untyped_storage()._cdata, maps.shape, maps.stride()
        self.count = _count.get()
        self.uses = self.left = 0
        self.changed = False
        self.maps: Tensor | None = None

    def kept(self, tensor: Tensor) -> tuple[Tensor, int] | None:
        same = tensor.untyped_storage()._cdata == self.storage and tensor.shape == self.shape
        if not same or tensor.stride() != self.strides:
            # with its version, for which torch does not look where there are hooks
            return (tensor if self.count is None else self.count.see(tensor)), tensor._version
        self.uses += 1
        return None

    def needed(self, kept: tuple[Tensor, int] | None) -> Tensor:
        if self.changed or (kept is not None and kept[0]._version != kept[1]):
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation "
                "since the forward pass"
            )
        if kept is not None:
            return kept[0]
        if self.maps is None:
            with torch.no_grad():
                self.maps, self.left = self.again().relu_(), self.uses
        maps = self.maps
        self.left -= 1
        if not self.left:
            self.maps = None
        return maps
