"""Convolutions that libraries for CPUs compute badly, written as others of the same sums.

Weights, names, values and gradients are torch's to rounding; on GPUs all but the flat one are torch's own. What each
gains is measured by ``benchmarks/convolution_forms.py`` (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.core.device import has_amx

AMX = has_amx()
VECTOR = 16  # float32 numbers of a 512-bit register: oneDNN's kernels want as many channels in a group


class StridedConv2d(nn.Conv2d):
    """A convolution that skips: (B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride)).

    With a 1x1 kernel in float32 the skipping comes first and leaves a matrix product; oneDNN's own backward pass of it
    turns maps around twice and is slow for many channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        if misread(self, x):
            return in_float32(F.conv2d, x, self.weight, self.bias, self.stride, self.padding)
        if x.dtype != torch.float32 or not _skips(self, x):
            return super().forward(x)
        down, across = self.stride
        return F.conv2d(x[:, :, ::down, ::across], self.weight, self.bias)


class PointwiseConv3d(nn.Conv3d):
    """A 1x1x1 convolution: (B, C, F, h, w) -> (B, C', ceil(F / stride), ceil(h / stride), ceil(w / stride)).

    Where it learns it skips first, as above, and in bfloat16 with AMX is a product over the channels: oneDNN's weight
    gradients of it are wrong there for many sizes of maps (torch 2.14).
    """

    def forward(self, x: Tensor) -> Tensor:
        if not _skips(self, x):
            return super().forward(x)
        deep, down, across = self.stride
        x = x[:, :, ::deep, ::down, ::across]
        if not AMX or not _in_half(x):
            return F.conv3d(x, self.weight, self.bias)
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class NarrowConv2d(nn.Conv2d):
    """A padded convolution of stride 1 for maps that can be narrower than its kernel, (B, C, h, w) -> (B, C', h, w).

    (With matrix units, in bfloat16, also for maps a column wider than it.) There are few places, so patches are cheap
    to write out, and large weights, which oneDNN would copy into another order in every pass; a third of its products
    would be with zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        widest = self.kernel_size[1] - 1
        if AMX and x.dtype == torch.bfloat16:
            widest += 2
        if x.device.type != "cpu" or width > widest:
            return super().forward(x)
        padding = cast(tuple[int, int], self.padding)
        patches = F.unfold(x.contiguous(), self.kernel_size, padding=padding)  # (B, C k k, h w)
        product = self.weight.flatten(1) @ patches.transpose(0, 1).flatten(1)
        maps = product.unflatten(1, (batch, height, width)).transpose(0, 1).contiguous()
        return maps if self.bias is None else maps + self.bias[:, None, None]


class GroupedConv3d(nn.Conv3d):
    """A 3x3x3 convolution in groups, padded by 1: (B, C, F, h, w) -> (B, C', F', h', w').

    Of a single frame only the kernel's middle is ever used: that is a convolution of two dimensions. And gradients of
    groups of few channels take as long as those of one full register, so groups are joined, with zeros between them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.size(2) == 1:
            middle, strides = self.weight[:, :, self.kernel_size[0] // 2], self.stride[1:]
            flat = partial(in_float32, F.conv2d) if misread(self, x) else F.conv2d
            return flat(x[:, :, 0], middle, self.bias, strides, self.padding[1:], 1, self.groups)[:, :, None]
        if x.device.type != "cpu" or not (_learns(self) or misread(self, x)):
            return super().forward(x)
        own = self.in_channels // self.groups
        joined = VECTOR // own if own <= VECTOR // 4 and self.groups % (VECTOR // own) == 0 else 1
        weight = self.weight if joined == 1 else _block_diagonal(self.weight, self.groups, joined)
        right = AMX and own > VECTOR // 4 and not misread(self, x)
        convolve = partial(in_float32, F.conv3d) if _in_half(x) and not right else F.conv3d
        return convolve(x, weight, self.bias, self.stride, self.padding, 1, self.groups // joined)


class WideConv3d(nn.Conv3d):
    """One of a large kernel, (B, C, F, h, w) -> (B, C', F', h', w'), in float32 on CPUs but for its result."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        return in_float32(F.conv3d, x, self.weight, self.bias, self.stride, self.padding)


def in_float32(
    convolve: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any
) -> Tensor:
    """torch's function in float32 but for its result, for CPUs.

    In bfloat16 oneDNN's weight gradients of few frames or narrow maps are wrong by their own size, and those of a few
    large kernels are written past their memory (torch 2.14).
    """
    with torch.autocast("cpu", enabled=False):
        bias = None if bias is None else bias.float()
        return convolve(x.float(), weight.float(), bias, *arguments).to(x.dtype)


def misread(convolution: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Whether oneDNN computes wrongly: with AMX, in bfloat16, values and gradients of convolutions that skip on maps
    smaller than their kernel are not numbers, or any (torch 2.14)."""
    if x.device.type != "cpu" or not _in_half(x):
        return False
    smaller = any(size < kernel for size, kernel in zip(x.shape[2:], convolution.kernel_size, strict=True))
    return smaller and max(convolution.stride) > 1


def _in_half(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")


def _skips(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    return x.device.type == "cpu" and max(layer.kernel_size) == 1 and _learns(layer)


def _learns(layer: nn.Conv2d | nn.Conv3d) -> bool:
    return torch.is_grad_enabled() and layer.weight.requires_grad


def _block_diagonal(weight: Tensor, groups: int, joined: int) -> Tensor:
    """(C', C / groups, *kernel) -> (C', joined C / groups, *kernel): ``joined`` groups each as one, 0 between them."""
    out, own, *kernel = weight.shape
    apart = weight.view(groups // joined, joined, out // groups, 1, own, *kernel)
    where = torch.eye(joined, dtype=torch.bool, device=weight.device)
    where = where.view(1, joined, 1, joined, *[1] * (1 + len(kernel)))
    return torch.where(where, apart, 0).reshape(out, joined * own, *kernel)
