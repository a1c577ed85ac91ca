"""A convolution, its BatchNorm and what follows, a sum or a ReLU, as one pass of oneDNN over the maps.

In generation on CPUs, where norms are constants: as scales of the convolution's weights, in copies that follow them
(:mod:`unival.modeling.copies`). Values are equal to rounding; elsewhere everything is torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unival.modeling.convolutions import (
    GroupedConv3d,
    NarrowConv2d,
    PointwiseConv3d,
    StridedConv2d,
    WideConv3d,
    misread,
)
from unival.modeling.copies import copy_of, onednn_has
from unival.modeling.products import search_copies
from unival.modeling.remaking import INNERMOST, plain, remade, remakes, unchanged
from unival.modeling.remaking import NORMS as BATCH_NORMS

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, StridedConv2d, NarrowConv2d, PointwiseConv3d, GroupedConv3d, WideConv3d)
NORMS = (*BATCH_NORMS, nn.SyncBatchNorm)
# With AVX2 alone a pass is as long as the three that it stands for (docs/performance.md).
PAYS = torch.backends.cpu.get_cpu_capability() == "AVX512"


def normed(
    pairs: Sequence[tuple[nn.Module, nn.Module]],
    x: Tensor,
    then: Callable[[Tensor], Tensor] = unchanged,
    order: Callable[[Tensor], Tensor] = unchanged,
    in_float32: bool = True,
) -> Tensor:
    """Through convolutions, each with its norm and a ReLU, and then ``then``: (B, C, *grid) -> (B, C', *grid').

    ``order``: puts the first convolution's maps in another order in memory; ``in_float32``: whether values may move by
    rounding in that type as well. Training keeps the maps that norms read, and makes those behind them again
    (:mod:`unival.modeling.remaking`).
    """
    waiting: nn.Module | None = None  # the norm that x still lacks
    for convolution, norm in pairs:
        may = waiting is None and (in_float32 or x.dtype != torch.float32)
        folded = _folded(convolution, norm, x) if may else None
        if folded is not None:
            x, order = order(folded(x)), unchanged
            continue
        x = order(convolution(x) if waiting is None else remade(waiting, x, convolution))
        order = unchanged
        waiting = norm if remakes(norm, x) else None
        if waiting is None:
            x = norm(x).relu_()
    return then(x) if waiting is None else remade(waiting, x, then)


def added(
    pairs: Sequence[tuple[nn.Module, nn.Module]],
    x: Tensor,
    to: Tensor,
    branch: nn.Module | None = None,
) -> Tensor:
    """The same with another end: the last norm's maps go through ``branch`` (nothing in evaluation), are added to maps
    ``to`` of their shape, and a ReLU ends it.

    In generation on a CPU the sum is written over ``to``, which saves a pass through memory.
    """
    *inner, (convolution, norm) = pairs
    if search_copies(x) is None:
        x = normed(inner, x, convolution)
    else:
        x = normed(inner, x)
        folded = None if branch is not None and branch.training else _folded(convolution, norm, x)
        if folded is not None:
            return folded(x, to=to)
        x = convolution(x)
    x = norm(x)
    if branch is not None:
        x = branch(x)
    x += to
    return x.relu_()


class Chain(nn.Sequential):
    """torch's, whose convolutions take the norms and ReLUs behind them along."""

    def forward(self, x: Tensor) -> Tensor:
        modules = list(self)
        at = 0
        while at < len(modules):
            norm = modules[at + 1] if at + 1 < len(modules) else None
            folded = _folded(modules[at], norm, x)
            if folded is None:
                x = modules[at](x)
                at += 1
                continue
            relu = at + 2 < len(modules) and plain(modules[at + 2], (nn.ReLU,))
            x = folded(x, relu=relu)
            at += 3 if relu else 2
        return x


@dataclass
class _Folded:
    """``weight``: the convolution's (C', C, *kernel) times the norm's scales, packed; ``bias`` (C',); ``places``:
    padding, stride, dilation, groups; ``norm``: where its scales lie, and its epsilon."""

    weight: Tensor
    bias: Tensor
    places: tuple[list[int], list[int], list[int], int]
    norm: tuple[int, float]

    def __call__(self, x: Tensor, relu: bool = True, to: Tensor | None = None) -> Tensor:
        product, onednn = (self.weight, self.bias, *self.places), torch.ops.mkldnn
        if to is not None and _innermost(x) and _innermost(to):
            summed = onednn._convolution_pointwise_.binary
            return cast(Tensor, summed(to, x, *product, "add", 1.0, "relu", [], ""))
        then = "relu" if relu and to is None else "none"
        maps = cast(Tensor, onednn._convolution_pointwise(x, *product, then, [], ""))
        return maps if to is None else to.add_(maps).relu_()


def _folded(convolution: nn.Module, norm: nn.Module | None, x: Tensor) -> _Folded | None:
    """Both as one, or None where they go one by one."""
    if torch.compiler.is_compiling():
        return None
    copies = search_copies(x)
    if not PAYS or copies is None or not x.numel() or not onednn_has(x.dtype):
        return None
    if not plain(convolution, CONVOLUTIONS) or not plain(norm, NORMS):
        return None
    weights = _constants(cast(Any, convolution), cast(Any, norm))
    if weights is None or weights[0].dtype != x.dtype or misread(cast(Any, convolution), x):
        return None
    copy = copy_of(weights, copies)
    found = None if copy is None else copy.used(weights, lambda: _fold(convolution, norm, weights, x))
    # a weight that two share, or another stride since, is not what was folded
    same = found is not None and found.places == _places(convolution) and found.norm == _identity(norm)
    return found if same else None


def _innermost(x: Tensor) -> bool:
    """Whether the channels are innermost, beyond doubt: torch's sums of other maps are apart, or fail in bfloat16."""
    return x.is_contiguous(memory_format=INNERMOST[x.dim()]) and not x.is_contiguous()


def _places(convolution: Any) -> tuple[list[int], list[int], list[int], int]:
    sizes = (convolution.padding, convolution.stride, convolution.dilation)
    padding, stride, dilation = map(list, sizes)
    return padding, stride, dilation, convolution.groups


def _identity(norm: Any) -> tuple[int, float]:
    return norm.weight.data_ptr(), norm.eps


def _constants(convolution: nn.Conv2d | nn.Conv3d, norm: _BatchNorm) -> tuple[Tensor, ...] | None:
    """What the pass is made of; None where the norm looks at the batch, or the convolution has more than a weight."""
    held = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    more = (
        convolution.bias is not None or convolution.padding_mode != "zeros" or convolution.padding == "same"
    )
    if norm.training or more or any(tensor is None for tensor in held):
        return None
    return (convolution.weight, *cast(tuple[Tensor, ...], held))


def _fold(convolution: Any, norm: Any, weights: tuple[Tensor, ...], x: Tensor) -> _Folded:
    own, scale, shift, mean, variance = (weight.detach().float() for weight in weights)
    scale = scale * torch.rsqrt(variance + norm.eps)
    weight = (own * scale.view(-1, *[1] * (own.dim() - 1))).to(x.dtype)
    weight = weight.contiguous(memory_format=INNERMOST[own.dim()])
    places = _places(convolution)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *places, list(x.shape))
    return _Folded(packed, (shift - mean * scale).to(x.dtype), places, _identity(norm))
