"""RandAugment of images: the values that torchvision's functions give for uint8 tensors, bit for bit
(tests/unit/media/test_augmentation.py), in a third of their time and without importing torchvision.

What saves the time: planes of one colour, casts by numpy, and what depends on the size alone is made once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import grid_sample, pad

# RandAugment(2, level 7) of the reference: two operations, each applied with probability one half, at
# 7/10 of the largest enhancement 1.8 + 0.1, shear 0.3, shift 10 pixels and turn 30 degrees.
_OPERATIONS, _APPLIED, _LEVEL, _FILL = 2, 0.5, 0.7, 128
_ENHANCED, _SHEAR, _SHIFT, _TURN = _LEVEL * 1.8 + 0.1, _LEVEL * 0.3, round(_LEVEL * 10), _LEVEL * 30

_Matrix = tuple[float, float, float, float, float, float]


def rand_augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """RandAugment with the reference's ten operations on uint8 (3, h, w); see the constants above."""
    for operation in rng.choice(len(_AUGMENTATIONS), _OPERATIONS):
        applied, sign = rng.random() < _APPLIED, -1.0 if rng.random() < 0.5 else 1.0
        if applied:
            pixels = _AUGMENTATIONS[operation](pixels.contiguous(), sign)
    return pixels


def _autocontrast(pixels: Tensor) -> Tensor:
    """Stretch each colour from its darkest and brightest pixel to 0 and 255."""
    colours = pixels.numpy().reshape(len(pixels), -1)
    low, high = (torch.from_numpy(each).float()[:, None, None] for each in (colours.min(1), colours.max(1)))
    scale, flat = (high - low).mul_(1.0 / 255), low == high
    low[flat], scale[flat] = 0.0, 1.0
    return _to_bytes(pixels.float().sub_(low).div_(scale))


def _equalised(pixels: Tensor) -> Tensor:
    """Spread the values of each colour evenly."""
    colours = [ImageOps.equalize(Image.fromarray(colour)) for colour in pixels.numpy()]
    return torch.from_numpy(np.stack([np.asarray(colour) for colour in colours]))


def _brightened(pixels: Tensor) -> Tensor:
    return _to_bytes(pixels.float().mul_(_ENHANCED))


def _sharpened(pixels: Tensor) -> Tensor:
    """Move each pixel off the mean of its 3 x 3 neighbours, in which itself counts five times; the border stays."""
    if min(pixels.shape[1:]) <= 2:
        return pixels
    values = pixels.short()
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    total.add_(values[:, 1:-1, 1:-1], alpha=4)
    # A thirteenth of a whole number is never near one half: it is rounded alike however it was computed.
    smooth = total.float().mul_(1.0 / 13.0).round_()
    sharp = pixels.float()
    inner = sharp[:, 1:-1, 1:-1]
    inner.add_(smooth.sub_(inner), alpha=1.0 - _ENHANCED)
    return _to_bytes(sharp)


def _shifted(pixels: Tensor, right: int, down: int) -> Tensor:
    """Move by whole pixels."""
    height, width = pixels.shape[1:]
    left, up = max(-right, 0), max(-down, 0)
    wide = pad(pixels, [max(right, 0), left, max(down, 0), up], value=_FILL)
    return wide[:, up : up + height, left : left + width]


def _warped(pixels: Tensor, matrix: _Matrix) -> Tensor:
    """Take each pixel from where ``matrix`` says (:func:`_sampling`), between pixels in proportion."""
    grid, inside = _sampling(matrix, *pixels.shape[1:])
    moved = grid_sample(pixels.float()[None], grid, align_corners=False)[0]
    return _to_bytes(moved.sub_(_FILL).mul_(inside).add_(_FILL).round_())


@lru_cache(maxsize=8)
def _sampling(matrix: _Matrix, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel comes from (1, h, w, 2), and how much of it lies inside the picture (1, h, w).

    matrix: two rows that take (x, y, 1), from the centre, to the place in the picture. The steps are torchvision's, for
    its very bits.
    """
    base = torch.ones(height, width, 3)
    base[..., 0] = torch.linspace((1.0 - width) * 0.5, (width - 1.0) * 0.5, width)
    base[..., 1] = torch.linspace((1.0 - height) * 0.5, (height - 1.0) * 0.5, height)[:, None]
    to_grid = torch.tensor(matrix).view(1, 2, 3).transpose(1, 2)
    to_grid = to_grid.div_(torch.tensor([0.5 * width, 0.5 * height]))
    grid = base.view(1, height * width, 3).bmm(to_grid).view(1, height, width, 2)
    return grid, grid_sample(torch.ones(1, 1, height, width), grid, align_corners=False)[0]


def _sheared(pixels: Tensor, along_x: float, along_y: float) -> Tensor:
    """Shear from the upper left corner, as the reference does."""
    height, width = pixels.shape[1:]
    return _warped(pixels, (1.0, along_x, along_x * height * 0.5, along_y, 1.0, along_y * width * 0.5))


def _turned(pixels: Tensor, degrees: float) -> Tensor:
    """Turn about the centre, clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _warped(pixels, (cos, sin, 0.0, -sin, cos, 0.0))


def _to_bytes(values: Tensor) -> Tensor:
    """float32 cut to 0..255 and to whole numbers; numpy casts several times as fast as torch."""
    return torch.from_numpy(values.clamp_(0, 255).numpy().astype(np.uint8))


_AUGMENTATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda pixels, sign: pixels,
    lambda pixels, sign: _autocontrast(pixels),
    lambda pixels, sign: _equalised(pixels),
    lambda pixels, sign: _brightened(pixels),
    lambda pixels, sign: _sharpened(pixels),
    lambda pixels, sign: _sheared(pixels, sign * _SHEAR, 0.0),
    lambda pixels, sign: _sheared(pixels, 0.0, sign * _SHEAR),
    lambda pixels, sign: _shifted(pixels, int(sign) * _SHIFT, 0),
    lambda pixels, sign: _shifted(pixels, 0, int(sign) * _SHIFT),
    lambda pixels, sign: _turned(pixels, sign * _TURN),
)
