"""What torchvision does with the pixels of images: augmentation, crops, its resize. Importing torchvision takes as long
as importing torch, so nobody imports this module before it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

# RandAugment(2, level 7) of the reference: two operations, each applied with probability one half, at
# 7/10 of the largest enhancement 1.8 + 0.1, shear 0.3, shift 10 pixels and turn 30 degrees.
_OPERATIONS, _APPLIED, _LEVEL, _FILL = 2, 0.5, 0.7, [128.0]


def rand_augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """RandAugment with the reference's ten operations on uint8 (3, h, w); see the constants above."""
    for operation in rng.choice(len(_AUGMENTATIONS), _OPERATIONS):
        applied, sign = rng.random() < _APPLIED, -1.0 if rng.random() < 0.5 else 1.0
        if applied:
            pixels = _AUGMENTATIONS[operation](pixels, sign)
    return pixels


def _affine(
    pixels: Tensor,
    *,
    angle: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    shear: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    degrees = [float(np.degrees(np.arctan(value))) for value in shear]
    return functional.affine(
        pixels,
        angle=angle,
        translate=[round(value) for value in shift],
        scale=1.0,
        shear=degrees,
        interpolation=InterpolationMode.BILINEAR,
        fill=_FILL,
        # The reference shears from the corner and turns about the centre.
        center=[0.0, 0.0] if any(shear) else None,
    )


_AUGMENTATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda pixels, sign: pixels,
    lambda pixels, sign: functional.autocontrast(pixels),
    lambda pixels, sign: functional.equalize(pixels),
    lambda pixels, sign: functional.adjust_brightness(pixels, _LEVEL * 1.8 + 0.1),
    lambda pixels, sign: functional.adjust_sharpness(pixels, _LEVEL * 1.8 + 0.1),
    lambda pixels, sign: _affine(pixels, shear=(sign * _LEVEL * 0.3, 0.0)),
    lambda pixels, sign: _affine(pixels, shear=(0.0, sign * _LEVEL * 0.3)),
    lambda pixels, sign: _affine(pixels, shift=(sign * _LEVEL * 10, 0.0)),
    lambda pixels, sign: _affine(pixels, shift=(0.0, sign * _LEVEL * 10)),
    lambda pixels, sign: _affine(pixels, angle=sign * _LEVEL * 30),
)


def centre_crop(pixels: Tensor, size: int) -> Tensor:
    """(..., h, w) -> (..., size, size), zeros around what is smaller."""
    return functional.center_crop(pixels, [size, size])


def resized(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 (..., h, w) -> uint8 (..., *size): bicubic, antialiased."""
    return functional.resize(pixels, list(size), InterpolationMode.BICUBIC, antialias=True)
