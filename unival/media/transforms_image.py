"""Decoded images to model input: evaluation, training, and grounding with its box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unival.errors import ConfigError
from unival.media.arguments import needed
from unival.media.augmentation import rand_augment
from unival.media.resize import centre, centre_crop, pixels_of, resized, resized_window

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Box = tuple[float, float, float, float]


class Grounded(NamedTuple):
    """image float32 (3, size, size); box (x0, y0, x1, y1) in its pixels; resize (w_ratio, h_ratio)."""

    image: Tensor
    box: Box | None
    resize: tuple[float, float]


def normalisation(imagenet: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel: ImageNet's, or 0.5 (what the released models use)."""
    return (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (HALF, HALF)


def image_eval(
    image: Image.Image,
    size: int,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    *,
    resize: bool = True,
    backend: str = "pillow",
) -> Tensor:
    """Resize to size x size (bicubic, not keeping the aspect ratio) and normalise: float32 (3, size, size).

    ``resize=False`` (the reference's no_image_transform) crops the centre instead, zeros around a
    smaller image. Reference behaviour, but for ``backend`` "torchvision": its antialiased resize of uint8 is within
    one level of Pillow's, two where it enlarges (tests/unit/media/test_resize_backend.py).
    """
    image = _rgb(image)
    if resize:
        return normalised(resized(image, size, size, backend), mean, std)
    return normalised(centre_crop(pixels_of(image), size), mean, std)


def image_train(
    image: Image.Image,
    size: int,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    rng: np.random.Generator | None = None,
    *,
    augment: bool = True,
    resize: bool = True,
    top_scale: int | None = None,
    backend: str = "pillow",
) -> Tensor:
    """The training image, float32 (3, size, size); the same ``rng`` state gives the same result.

    With ``augment`` (the reference's use_dataaug): a random short side from ``size`` to ``top_scale``,
    centre crop, RandAugment. Without it, or with ``resize=False``, the same as ``image_eval``.
    top_scale None: 480 for sizes 384 to 480 as in the reference, else 1.25 * size.
    """
    if not augment or not resize:
        return image_eval(image, size, mean, std, resize=resize, backend=backend)
    rng = needed(rng)
    shape = _random_short_side(image.size, size, top_scale, rng)
    corner = (centre(shape[0], size), centre(shape[1], size))
    window = resized_window(_rgb(image), shape, corner, size, backend)
    return normalised(rand_augment(window, rng), mean, std)


def grounding_eval(
    image: Image.Image,
    box: Sequence[float] | None,
    size: int,
    max_image_size: int = 512,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    *,
    backend: str = "pillow",
    original: tuple[int, int] | None = None,
) -> Grounded:
    """Resize to size x size and scale the box along; the ratios undo it. Reference behaviour.

    original: (width, height) that the box is about, where ``image`` is a smaller draft of it. Raises ConfigError
    when the coordinate bins, which span ``max_image_size`` pixels, cannot name every pixel of the image.
    """
    _check_bins(size, max_image_size)
    width, height = original or image.size
    ratio = (size / width, size / height)
    scaled = _scale_box(box, ratio) if box is not None else None
    return Grounded(image_eval(image, size, mean, std, backend=backend), scaled, ratio)


def grounding_known(features: Tensor, original: tuple[int, int], size: int, max_image_size: int) -> Grounded:
    """:func:`grounding_eval` of an image of (width, height) ``original`` whose features are known already; without
    the box. Raises ConfigError likewise."""
    _check_bins(size, max_image_size)
    return Grounded(features, None, (size / original[0], size / original[1]))


def grounding_train(
    image: Image.Image,
    box: Sequence[float],
    size: int,
    max_image_size: int = 512,
    rng: np.random.Generator | None = None,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    *,
    region_crop: bool = False,
    top_scale: int | None = None,
    backend: str = "pillow",
    original: tuple[int, int] | None = None,
) -> Grounded:
    """The training image of a referring expression.

    Fine-tuning: the same as ``grounding_eval``. ``region_crop`` (pretraining): a random short side from
    ``size`` to ``top_scale`` (see ``image_train``), then the size x size window centred on the box and
    shifted inside the image; the box is cut to the window. The ratios are those of the resize.
    """
    if not region_crop:
        return grounding_eval(image, box, size, max_image_size, mean, std, backend=backend, original=original)
    _check_bins(size, max_image_size)
    width, height = _random_short_side(image.size, size, top_scale, needed(rng))
    of = original or image.size
    ratio = (width / of[0], height / of[1])
    x0, y0, x1, y1 = _scale_box(box, ratio)
    left = _window((x0 + x1) / 2, size, width)
    top = _window((y0 + y1) / 2, size, height)
    window = resized_window(_rgb(image), (width, height), (left, top), size, backend)
    inside = [min(max(v, 0.0), float(size)) for v in (x0 - left, y0 - top, x1 - left, y1 - top)]
    return Grounded(normalised(window, mean, std), (inside[0], inside[1], inside[2], inside[3]), ratio)


def scale_range(size: int, top_scale: int | None = None) -> tuple[int, int]:
    """Largest random short side, and the cap of each side (reference: 480 and 672, ratio 1.4)."""
    top = top_scale if top_scale is not None else 480 if 384 <= size <= 480 else round(size * 1.25)
    if top < size:
        raise ConfigError(f"top_scale {top} is below the image size {size}: at least {size} is needed")
    return top, max(round(top * 1.4), size)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _random_short_side(
    shape: tuple[int, int], size: int, top_scale: int | None, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the (width, height) to which an image of (width, height) ``shape`` is resized."""
    top, cap = scale_range(size, top_scale)
    short = int(rng.integers(size, top + 1))
    width, height = shape
    if width < height:
        return short, min(int(short * height / width), cap)
    return min(int(short * width / height), cap), short


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (3, ...) -> float32 (3, ...), contiguous; colour by colour, which stays in the processor's cache."""
    out = torch.empty(pixels.shape)
    for values, colour, middle, spread in zip(out, pixels, mean, std, strict=True):
        values.copy_(colour).div_(255).sub_(middle).div_(spread)
    return out


def _scale_box(box: Sequence[float], ratio: tuple[float, float]) -> Box:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0 * ratio[0], y0 * ratio[1], x1 * ratio[0], y1 * ratio[1]


def _window(centre: float, size: int, length: int) -> int:
    return min(max(round(centre - size / 2), 0), length - size)


def _check_bins(size: int, max_image_size: int) -> None:
    if size > max_image_size:
        raise ConfigError(
            f"image size {size} is above max_image_size {max_image_size}, the pixels that the coordinate "
            "bins span: lower the image size or raise max_image_size"
        )
