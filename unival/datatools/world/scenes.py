"""Image scenes: one to three coloured shapes on a 3 x 3 grid of places."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unival.datatools.world.attributes import PLACES, SIZES, draw_in_split, draw_pair, pick
from unival.datatools.world.drawing import BACKGROUND_KINDS, background, paint

# Corners of all boxes lie on a grid of 32 x 32 steps whatever the picture's aspect, so that only 33 of the
# vocabulary's bins are ever used: few enough to be learned from a few thousand boxes.
STEPS = 32
CENTRES = (5.5, 16.0, 26.5)
SIDE_STEPS = {"small": 7, "large": 11}


@dataclass(frozen=True)
class Thing:
    """One shape; ``box`` is x0, y0, x1, y1 in pixels of the picture."""

    color: str
    shape: str
    size: str
    place: str
    box: tuple[float, float, float, float]

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def row(self) -> int:
        return PLACES.index(self.place) // 3

    @property
    def column(self) -> int:
        return PLACES.index(self.place) % 3


@dataclass(frozen=True)
class Scene:
    """A picture: things in reading order, size in pixels, tone of the background ("light" or "dark")."""

    width: int
    height: int
    tone: str
    texture: str
    things: tuple[Thing, ...]

    def content(self) -> str:
        """Return what decides the split: the things, without the background and the exact boxes."""
        return "; ".join(f"{t.size} {t.name} {t.place}" for t in self.things)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _place_box(place: int, size: str, width: int, height: int, rng: np.random.Generator) -> tuple[float, ...]:
    corners: list[tuple[float, float]] = []
    for centre, extent in ((CENTRES[place % 3], width), (CENTRES[place // 3], height)):
        # the same number of pixels along both axes, rounded to whole steps
        side = round(SIDE_STEPS[size] * min(width, height) / extent)
        start = int(np.clip(round(centre - side / 2) + rng.integers(-1, 2), 0, STEPS - side))
        corners.append((start * extent / STEPS, (start + side) * extent / STEPS))
    (x0, x1), (y0, y1) = corners
    return x0, y0, x1, y1


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw(rng: np.random.Generator, side: int, held_out: bool) -> Scene:
    aspect = rng.random()
    width = side if aspect < 0.9 else side * 5 // 4
    height = side if aspect < 0.8 or aspect >= 0.9 else side * 5 // 4
    count = int(rng.choice([1, 2, 3], p=[0.7, 0.25, 0.05]))
    things: list[Thing] = []
    taken: set[tuple[str, str]] = set()
    while len(things) < count:
        pair = draw_pair(rng, taken, held_out and not things)
        place, size = int(rng.integers(9)), pick(rng, SIZES)
        x0, y0, x1, y1 = _place_box(place, size, width, height, rng)
        if any(PLACES[place] == other.place or _touch((x0, y0, x1, y1), other.box) for other in things):
            continue
        taken.add(pair)
        things.append(Thing(pair[0], pair[1], size, PLACES[place], (x0, y0, x1, y1)))
    things.sort(key=lambda thing: PLACES.index(thing.place))
    return Scene(width, height, pick(rng, ("light", "dark")), pick(rng, BACKGROUND_KINDS), tuple(things))


def draw_scene(rng: np.random.Generator, split: str, side: int, held_out: bool) -> Scene:
    """Draw a scene whose content belongs to ``split``.

    ``side`` is the shorter side in pixels. With ``held_out`` the first thing is of a colour/shape pair that
    the base world does not have; without, none is.
    """
    return draw_in_split(lambda r: _draw(r, side, held_out), Scene.content, split, rng)


def save_scene(scene: Scene, path: Path, rng: np.random.Generator) -> None:
    """Draw and write a JPEG or PNG, as the suffix says."""
    ground = background(scene.width, scene.height, scene.tone, scene.texture, rng)
    picture = paint(ground, [(t.color, t.shape, t.box) for t in scene.things])
    if path.suffix == ".png":
        picture.save(path, compress_level=6)
    else:
        picture.save(path, quality=92, subsampling=0)
