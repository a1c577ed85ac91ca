"""Checks of arguments that several transforms share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unival.errors import ConfigError, nearest


def one_of(what: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ConfigError(f"{what} '{value}' is not one of {', '.join(choices)}.{nearest(value, choices)}")


def needed(rng: np.random.Generator | None) -> np.random.Generator:
    """Return the generator of a random choice; ConfigError without one."""
    if rng is None:
        raise ConfigError("a random choice needs a generator (unival.core.seeding.rng_for)")
    return rng
