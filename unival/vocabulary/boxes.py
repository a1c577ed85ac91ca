"""Boxes: parsing, checks, and the way to coordinate bins and back.

A box is (x0, y0, x1, y1) in pixels, x to the right, y down, x0 < x1, y0 < y1. Arithmetic is float32, so that
the bins are the reference's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unival.errors import ConfigError, DataError

Box = tuple[float, float, float, float]

# annotations rounded to whole pixels, or given as x + width, may end this far outside
_SLACK = 1.0


def parse_box(value: object) -> Box:
    """Read ``"x0,y0,x1,y1"`` or a sequence of four numbers; DataError when it is no box."""
    parts = value.split(",") if isinstance(value, str) else value
    try:
        numbers = [math.nan if isinstance(part, bool) else float(part) for part in parts]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise DataError(f"expected a box as four numbers 'x0,y0,x1,y1' in pixels, got {str(value)[:60]!r}")
    return _ordered(*numbers)


def _ordered(x0: float, y0: float, x1: float, y1: float) -> Box:
    if x0 >= x1 or y0 >= y1:
        raise DataError(f"expected a box with x0 < x1 and y0 < y1, got {x0:g},{y0:g},{x1:g},{y1:g}")
    return x0, y0, x1, y1


def are_shares(numbers: Sequence[float]) -> bool:
    """Whether coordinates lie in 0..1 and are no whole pixels: a box of less than a pixel is none."""
    return all(0 <= n <= 1 for n in numbers) and any(n % 1 for n in numbers)


def not_shares(numbers: Sequence[float]) -> None:
    """Raise DataError for a box whose coordinates are shares of the image's sides."""
    if are_shares(numbers):
        raise DataError(
            f"the box {','.join(f'{n:g}' for n in numbers)} looks like shares of the image's sides: expected pixels; "
            "multiply x by its width and y by its height"
        )


def inside(box: Box, size: tuple[int, int]) -> Box:
    """Return ``box`` clipped to an image of (width, height); DataError when it leaves it by over a pixel."""
    width, height = size
    x0, y0, x1, y1 = box
    if min(x0, y0) < -_SLACK or x1 > width + _SLACK or y1 > height + _SLACK:
        raise DataError(
            f"box {x0:g},{y0:g},{x1:g},{y1:g} lies outside its image of {width} x {height} pixels; "
            "coordinates are pixels x0,y0,x1,y1 of the stored image"
        )
    return _ordered(max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))


def drawable(box: Sequence[float], size: tuple[int, int]) -> Box:
    """Return a predicted box as a rectangle that can be drawn into a picture of ``size`` (width, height).

    A model may predict corners in the wrong order, or outside the picture.
    """
    (width, height), (x0, y0, x1, y1) = size, (float(value) for value in box)
    left, right = sorted(min(max(x, 0.0), width - 1.0) for x in (x0, x1))
    top, bottom = sorted(min(max(y, 0.0), height - 1.0) for y in (y0, y1))
    return left, top, right, bottom


def scale(box: Sequence[float], resize: tuple[float, float]) -> np.ndarray:
    """Return float32 (4,): a box in original pixels moved to network pixels by (width, height) ratios."""
    ratios = np.asarray([resize[0], resize[1], resize[0], resize[1]], dtype=np.float32)
    return np.asarray(box, dtype=np.float32) * ratios


def quantise(box: Sequence[float] | np.ndarray, max_image_size: int = 512, num_bins: int = 1000) -> list[int]:
    """Return the bin of each coordinate of a box in network pixels: round(c / max_image_size * (num_bins-1)).

    The span is ``max_image_size`` whatever the image's size, as in the reference: an image of 384 pixels
    uses bins up to 749. ConfigError when a coordinate lies beyond the span.
    """
    values = np.asarray(box, dtype=np.float32) / np.float32(max_image_size) * np.float32(num_bins - 1)
    bins = np.rint(values).astype(np.int64)
    if bins.min() < 0 or bins.max() >= num_bins:
        raise ConfigError(
            f"box {[round(float(c), 2) for c in box]} in network pixels exceeds max_image_size "
            f"{max_image_size}; max_image_size must be at least patch_image_size"
        )
    return bins.tolist()


def dequantise(
    bins: Sequence[int] | np.ndarray,
    resize: tuple[float, float] = (1.0, 1.0),
    max_image_size: int = 512,
    num_bins: int = 1000,
) -> np.ndarray:
    """Return float32 (..., 4) boxes in pixels of the original image; ``resize`` is (width, height) ratios."""
    values = np.asarray(bins).astype(np.float32) / np.float32(num_bins - 1) * np.float32(max_image_size)
    return values / np.asarray([resize[0], resize[1], resize[0], resize[1]], dtype=np.float32)
