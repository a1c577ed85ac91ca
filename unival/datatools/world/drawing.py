"""Drawing of coloured shapes and backgrounds with Pillow, antialiased by supersampling."""

from __future__ import annotations

from math import cos, pi, sin
from typing import TYPE_CHECKING

import numpy as np

from unival.datatools.world.attributes import COLOURS

if TYPE_CHECKING:
    from PIL import Image

SUPERSAMPLING = 4
BACKGROUND_KINDS = ("plain", "gradient", "stripes", "grain")


def outline(shape: str) -> list[tuple[float, float]]:
    """Return the corners of a shape inside the unit square; they touch all four of its sides."""
    if shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if shape == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    angles = [(-0.5 + k / 5) * pi for k in range(10)]
    radii = [1.0 if k % 2 == 0 else 0.42 for k in range(10)]
    points = [(r * cos(a), r * sin(a)) for r, a in zip(radii, angles, strict=True)]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return [((x - min(xs)) / (max(xs) - min(xs)), (y - min(ys)) / (max(ys) - min(ys))) for x, y in points]


def paint(
    background: Image.Image, objects: list[tuple[str, str, tuple[float, float, float, float]]]
) -> Image.Image:
    """Draw (colour, shape, box) objects onto a copy of ``background``; boxes x0, y0, x1, y1 in its pixels."""
    from PIL import Image, ImageDraw

    width, height = background.size
    canvas = background.resize((width * SUPERSAMPLING, height * SUPERSAMPLING), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for colour, shape, box in objects:
        x0, y0, x1, y1 = (SUPERSAMPLING * value for value in box)
        fill = COLOURS[colour]
        edge = tuple(int(channel * 0.55) for channel in fill)
        if shape == "circle":
            pen.ellipse((x0, y0, x1 - 1, y1 - 1), fill=fill, outline=edge, width=SUPERSAMPLING // 2)
        else:
            points = [(x0 + u * (x1 - x0 - 1), y0 + v * (y1 - y0 - 1)) for u, v in outline(shape)]
            pen.polygon(points, fill=fill, outline=edge, width=SUPERSAMPLING // 2)
    return canvas.resize((width, height), Image.Resampling.BOX)


def background(width: int, height: int, tone: str, kind: str, rng: np.random.Generator) -> Image.Image:
    """Draw a greyish background. ``tone`` is "light" or "dark", ``kind`` one of BACKGROUND_KINDS."""
    from PIL import Image

    base = rng.integers(205, 250) if tone == "light" else rng.integers(15, 60)
    tint = rng.integers(-9, 10, size=3)
    grid = np.zeros((height, width), dtype=np.float64)
    if kind == "gradient":
        dx, dy = rng.uniform(-1, 1, size=2)
        grid += 22 * (dx * np.linspace(-1, 1, width)[None, :] + dy * np.linspace(-1, 1, height)[:, None])
    elif kind == "stripes":
        period = int(rng.integers(4, 9))
        axis = np.arange(width)[None, :] if rng.integers(2) else np.arange(height)[:, None]
        grid += np.where(axis // period % 2 == 0, 10, -10)
    elif kind == "grain":
        grid += rng.normal(0, 8, size=(height, width))
    pixels = np.clip(grid[:, :, None] + base + tint, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "RGB")
