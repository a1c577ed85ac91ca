"""Every random choice of the project is a function of (seed, epoch, index, purpose)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def rng_for(seed: int, epoch: int, index: int, purpose: str = "") -> np.random.Generator:
    """Return an independent generator for one choice.

    Two runs, a resumed run, and runs with any number of workers or ranks draw the same numbers,
    since nothing but the four arguments enters.
    """
    key = [seed & 0xFFFFFFFF, epoch, index, zlib.crc32(purpose.encode("utf-8"))]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@contextmanager
def torch_seeded(rng: np.random.Generator) -> Iterator[None]:
    """Run code that draws from torch's global CPU generator (torchvision transforms) under ``rng``.

    The global state is restored afterwards, so dropout and other draws are not disturbed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        yield
