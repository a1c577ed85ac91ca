"""Resizes and crops of images and clips as uint8 pixels. Importing torchvision takes as long as importing torch, so it
is imported where it is asked to resize."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_BICUBIC = Image.Resampling.BICUBIC
_REACH = 2  # of Pillow's bicubic filter to either side, in pixels of the result where it shrinks


def pixels_of(image: Image.Image) -> Tensor:
    """RGB -> uint8 (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resized(image: Image.Image, width: int, height: int, backend: str) -> Tensor:
    """uint8 (3, height, width) by one of ``RESIZE_BACKENDS`` (unival/specs/options.py)."""
    if backend == "torchvision":
        return resized_pixels(pixels_of(image), [height, width])
    return pixels_of(image.resize((width, height), _BICUBIC))


def resized_window(
    image: Image.Image, shape: tuple[int, int], corner: tuple[int, int], size: int, backend: str
) -> Tensor:
    """Return the size x size window at ``corner`` (left, top) of the image resized to ``shape`` (width, height)."""
    (width, height), (left, top) = shape, corner
    if backend == "torchvision":
        return resized(image, width, height, backend)[:, top : top + size, left : left + size]
    # Pillow resizes along the rows, rounds, then along the columns. What the window does not see can be left out in
    # between: no bit of the window depends on it.
    scale = image.height / height
    reach = _REACH * max(scale, 1.0) + 1
    first = max(int(top * scale - reach), 0)
    last = min(ceil((top + size) * scale + reach), image.height)
    rows = image.crop((0, first, image.width, last)).resize((width, last - first), _BICUBIC)
    seen = Image.new("RGB", (size, image.height))
    seen.paste(rows.crop((left, 0, left + size, last - first)), (0, first))
    return pixels_of(seen.resize((size, height), _BICUBIC).crop((0, top, size, top + size)))


def resized_pixels(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 (..., h, w) -> uint8 (..., *size) by torchvision: bicubic, antialiased."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    return functional.resize(pixels, list(size), InterpolationMode.BICUBIC, antialias=True)


def centre_crop(pixels: Tensor, size: int) -> Tensor:
    """(..., h, w) -> (..., size, size), zeros around what is smaller."""
    down, across = (max(size - length, 0) for length in pixels.shape[-2:])
    if down or across:
        around = [across // 2, (across + 1) // 2, down // 2, (down + 1) // 2]
        pixels = torch.nn.functional.pad(pixels, around)
    top, left = (centre(length, size) for length in pixels.shape[-2:])
    return pixels[..., top : top + size, left : left + size]


def centre(length: int, size: int) -> int:
    """Where a centred window of ``size`` begins."""
    return round((length - size) / 2)
