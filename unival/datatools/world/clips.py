"""Video clips: one shape moves, appears or grows, sometimes beside a second one at rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from unival.datatools.world.attributes import (
    ACTIONS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    draw_in_split,
    draw_pair,
    pick,
)
from unival.datatools.world.drawing import background, paint

FRAMES_PER_SECOND = 8
# A fixed quantiser and no look-ahead: with adaptive rate control, about one clip in a hundred came out
# with other bytes when the same frames were encoded again.
X264 = "threads=1:rc-lookahead=0:sync-lookahead=0:bframes=0:mbtree=0:weightp=0"
ACTOR_SIDE = 0.34
OTHER_SIDE = 0.25


@dataclass(frozen=True)
class Actor:
    """One shape; ``centre`` (x, y) is where it stands or starts, in parts of the frame."""

    color: str
    shape: str
    centre: tuple[float, float]

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Clip:
    """A square clip of ``frames`` frames of ``side`` pixels. ``action`` is one of ACTIONS."""

    side: int
    frames: int
    tone: str
    action: str
    actor: Actor
    other: Actor | None

    def content(self) -> str:
        """Return what decides the split."""
        return f"{self.actor.name} {self.action}" + (f" beside {self.other.name}" if self.other else "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _draw(rng: np.random.Generator, side: int, held_out: bool) -> Clip:
    action = pick(rng, ACTIONS)
    frames = int(rng.integers(8, 17))
    pair = draw_pair(rng, set(), held_out)
    lane = float(rng.choice([0.24, 0.5, 0.76]))
    if action in DIRECTIONS:
        dx, dy = DIRECTIONS[action]
        centre = (0.5 - 0.3 * dx, lane) if dx else (lane, 0.5 - 0.3 * dy)
    else:
        centre = (float(rng.choice([0.28, 0.5, 0.72])), lane)
    other = None
    if rng.random() < 0.35:
        # neither its colour nor its shape: "the circle" and "the red one" each name one thing
        alike = {(c, s) for c in COLOURS for s in SHAPES if c == pair[0] or s == pair[1]}
        companion = draw_pair(rng, alike, False)
        far = 0.16 if lane >= 0.5 else 0.84
        along = float(rng.choice([0.18, 0.5, 0.82]))
        horizontal = action not in DIRECTIONS or DIRECTIONS[action][0] != 0
        other = Actor(*companion, (along, far) if horizontal else (far, along))
    return Clip(side, frames, pick(rng, ("light", "dark")), action, Actor(*pair, centre), other)


def draw_clip(rng: np.random.Generator, split: str, side: int, held_out: bool) -> Clip:
    """Draw a clip whose content belongs to ``split``; ``held_out`` as for scenes, for the moving shape."""
    return draw_in_split(lambda r: _draw(r, side, held_out), Clip.content, split, rng)


def _box(centre: tuple[float, float], part: float, side: int) -> tuple[float, float, float, float]:
    x, y = centre
    return (x - part / 2) * side, (y - part / 2) * side, (x + part / 2) * side, (y + part / 2) * side


def clip_frames(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """Draw the frames: uint8 (F, h, w, 3)."""
    ground = background(clip.side, clip.side, clip.tone, pick(rng, ("plain", "gradient")), rng)
    frames = []
    for k in range(clip.frames):
        part = k / (clip.frames - 1)
        x, y = clip.actor.centre
        scale: float = ACTOR_SIDE
        if clip.action in DIRECTIONS:
            dx, dy = DIRECTIONS[clip.action]
            x, y = x + 0.6 * part * dx, y + 0.6 * part * dy
        elif clip.action == "grows":
            scale = 0.14 + 0.42 * part
        things = []
        if clip.other:
            things.append(
                (clip.other.color, clip.other.shape, _box(clip.other.centre, OTHER_SIDE, clip.side))
            )
        if clip.action != "appears" or part >= 0.5:
            things.append((clip.actor.color, clip.actor.shape, _box((x, y), scale, clip.side)))
        frames.append(np.asarray(paint(ground, things)))
    return np.stack(frames)


def save_clip(clip: Clip, path: Path, rng: np.random.Generator) -> None:
    """Draw and write an H.264 MP4 (yuv420p, one thread: the bytes depend on nothing but the clip)."""
    import av

    frames = clip_frames(clip, rng)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264",
            rate=FRAMES_PER_SECOND,
            options={"qp": "18", "preset": "veryfast", "threads": "1", "x264-params": X264},
        )
        stream.width = stream.height = clip.side
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
