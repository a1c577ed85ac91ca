"""Captions of a sound."""

from __future__ import annotations

import numpy as np

from unival.datatools.world.sounds import Event, Sound
from unival.datatools.world.wording import Wording


def _phrase(event: Event, wording: Wording) -> str:
    return wording.events[event.kind].format(v=wording.word(event.volume), p=wording.word(event.pitch))


def captions(sound: Sound, wording: Wording, count: int, rng: np.random.Generator) -> list[str]:
    """Write ``count`` captions of different patterns."""
    patterns = wording.sounds if len(sound.events) == 1 else wording.sounds_two
    values = dict(zip("ef", (_phrase(event, wording) for event in sound.events), strict=False))
    return [patterns[k].format(**values) for k in rng.permutation(len(patterns))[:count]]
