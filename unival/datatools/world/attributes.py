"""What the sample world is made of: colours, shapes, places, movements and sounds.

The sets are small so that a tiny model can learn them from scratch on a laptop in a minute or two.
Four colour/shape pairs never occur in the base world; the variant ``new_objects`` is made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 38),
    "green": (42, 168, 66),
    "blue": (40, 84, 224),
    "yellow": (246, 218, 30),
    "purple": (142, 48, 176),
    "orange": (250, 134, 18),
}
SHAPES = ("circle", "square", "triangle", "star")
SIZES = ("small", "large")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
HELD_OUT = frozenset({("red", "star"), ("green", "triangle"), ("blue", "square"), ("yellow", "circle")})

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
ACTIONS = (*DIRECTIONS, "appears", "grows")

SOUND_KINDS = ("tone", "rising", "falling", "slow beeps", "fast beeps", "noise")
PITCHES = ("low", "medium", "high")
VOLUMES = ("quiet", "loud")
HELD_OUT_SOUNDS = frozenset({("rising", "low"), ("noise", "high"), ("slow beeps", "medium")})

SPLITS = ("train", "val", "test")
VARIANTS = ("base", "new_objects", "new_words")

T = TypeVar("T")


def split_of(content: str) -> str:
    """Return the split that a content belongs to: 75 % of all contents train, 10 % val, 15 % test.

    It depends on the content alone, neither on the seed nor on the variant, so that test contents of
    one world are never training contents of another.
    """
    share = int.from_bytes(blake2b(content.encode("utf-8"), digest_size=4).digest(), "big") / 2**32
    return "train" if share < 0.75 else "val" if share < 0.85 else "test"


def draw_in_split(
    draw: Callable[[np.random.Generator], T],
    content: Callable[[T], str],
    split: str,
    rng: np.random.Generator,
) -> T:
    """Draw until the content falls into ``split``."""
    while True:
        item = draw(rng)
        if split_of(content(item)) == split:
            return item


def draw_pair(rng: np.random.Generator, taken: set[tuple[str, str]], held_out: bool) -> tuple[str, str]:
    """Draw a (colour, shape) not in ``taken``, from the held-out pairs or from all others."""
    pairs = [
        (c, s) for c in COLOURS for s in SHAPES if ((c, s) in HELD_OUT) == held_out and (c, s) not in taken
    ]
    return pairs[int(rng.integers(len(pairs)))]


def pick(rng: np.random.Generator, choices: tuple[T, ...] | list[T]) -> T:
    """Draw one element."""
    return choices[int(rng.integers(len(choices)))]
