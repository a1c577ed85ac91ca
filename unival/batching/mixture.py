"""Which rows make up which batch: pure functions of (seed, epoch), the same in every process.

Several sources are mixed by weight. Balanced mode fixes how many rows each source gives to each update (the
paper's task-balanced batches); proportional mode mixes by size, for the ablation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from unival.core.seeding import rng_for
from unival.errors import ConfigError, nearest

Ints = npt.NDArray[np.int64]
Pick = tuple[int, int]
T = TypeVar("T")

MODES = ("balanced", "proportional")
_BLOCK = 1 << 16  # permutations of small sources are drawn in blocks of about so many rows


@dataclass(frozen=True, slots=True)
class Source:
    """One table of a mixture: ``size`` rows, a relative ``weight`` and a ``group`` such as "image" or "video"
    by which the caller may split a batch."""

    name: str
    size: int
    weight: float = 1.0
    group: str = ""


class _Lazy(Sequence[list[T]], Generic[T]):
    """A read-only list of batches made on demand: an epoch of millions of rows stays a few arrays."""

    def _batch(self, number: int) -> list[T]:
        raise IndexError(number)

    @overload
    def __getitem__(self, number: int) -> list[T]: ...
    @overload
    def __getitem__(self, number: slice) -> list[list[T]]: ...
    def __getitem__(self, number: int | slice) -> list[T] | list[list[T]]:
        if isinstance(number, slice):
            return [self._batch(i) for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        return self._batch(number % len(self))


class _Rows(_Lazy[int]):
    """Batches of row numbers."""

    def __init__(self, rows: Ints, batch_size: int) -> None:
        self._rows, self._batch_size = rows, batch_size

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def _batch(self, number: int) -> list[int]:
        return self._rows[number * self._batch_size : (number + 1) * self._batch_size].tolist()


class _Picks(_Lazy[Pick]):
    """Batches of (source number, row number)."""

    def __init__(self, source: npt.NDArray[np.int32], index: Ints, batch_size: int) -> None:
        self._source, self._index, self._batch_size = source, index, batch_size

    def __len__(self) -> int:
        return -(-len(self._index) // self._batch_size)

    def _batch(self, number: int) -> list[Pick]:
        part = slice(number * self._batch_size, (number + 1) * self._batch_size)
        return list(zip(self._source[part].tolist(), self._index[part].tolist(), strict=True))


def mixture_batches(
    sources: Sequence[Source],
    batch_size: int,
    seed: int,
    epoch: int,
    mode: str = "balanced",
    steps: int | None = None,
    num_ranks: int = 1,
    skipped: int = 0,
) -> Sequence[list[Pick]]:
    """Return the epoch's batches of (source number, row number); every batch is full.

    ``epoch`` counts from 1, as in fairseq. ``skipped``: rows at the start of the epoch that are left out, for a run
    that goes on with batches of another size; the last batch may then be smaller.
    ``steps``: batches of an epoch over all ranks; by default one pass of the first source, rounded up to
    full batches and to a multiple of ``num_ranks``, so that no rank is left with an empty batch.

    Balanced: of the first n rows of a run, source s gives n * weight_s / sum(weights), rounded; the rounding
    (Sainte-Lague) never takes a row back, so each update has a fixed quota and the totals follow the weights
    over updates and epochs. Weights 1, 1, 0.125 give the third source one row for every 8 of the first
    (the reference's counts). Proportional: the same shares with weight_s * size_s in place of weight_s,
    met by every epoch as a whole and shuffled within it.

    Each source walks its own random permutation, goes on in the next epoch where it stopped, and draws a new
    one when it is used up: every row exactly once per cycle.

    Raises ConfigError for no sources, an empty source, a weight or number that is not positive, an unknown
    mode.
    """
    _check(sources, batch_size, epoch, mode, steps, num_ranks)
    shares = _shares(sources, mode)
    steps = _steps(sources, shares, batch_size, num_ranks) if steps is None else steps
    before = seats(shares, (epoch - 1) * steps * batch_size)
    after = seats(shares, epoch * steps * batch_size)
    order = np.argsort(
        np.concatenate([_keys(shares[s], before[s], after[s]) for s in range(len(sources))]), kind="stable"
    )
    source = np.repeat(np.arange(len(sources), dtype=np.int32), after - before)[order]
    if mode == "proportional":
        source = rng_for(seed, epoch, 0, "mixture order").permutation(source)
    index = np.empty(len(source), np.int64)
    for number, item in enumerate(sources):
        index[source == number] = _walk(item.size, seed, number, int(before[number]), int(after[number]))
    return _Picks(source[skipped:], index[skipped:], batch_size)


@dataclass(frozen=True, slots=True)
class Quota:
    """What one source gives to a run: rows of an update (of all ranks, on average), rows of the first epoch on
    each rank (on average), and passes of that epoch over the source."""

    update: float
    epoch: float
    passes: float


def quotas(
    sources: Sequence[Source],
    batch_size: int,
    mode: str = "balanced",
    steps: int | None = None,
    num_ranks: int = 1,
    accumulate: int = 1,
) -> list[Quota]:
    """Say what each source gives, for the plan of a run; arguments of ``mixture_batches``.

    ``accumulate``: batches of each rank in an update.
    """
    _check(sources, batch_size, 1, mode, steps, num_ranks)
    shares = _shares(sources, mode)
    steps = _steps(sources, shares, batch_size, num_ranks) if steps is None else steps
    rows = seats(shares, steps * batch_size)
    update = shares / shares.sum() * batch_size * num_ranks * accumulate
    return [
        Quota(float(update[s]), int(rows[s]) / num_ranks, int(rows[s]) / source.size)
        for s, source in enumerate(sources)
    ]


def _shares(sources: Sequence[Source], mode: str) -> npt.NDArray[np.float64]:
    return np.array([s.weight * (s.size if mode == "proportional" else 1) for s in sources], np.float64)


def _steps(
    sources: Sequence[Source], shares: npt.NDArray[np.float64], batch_size: int, num_ranks: int
) -> int:
    """Batches of one pass of the first source, a multiple of ``num_ranks``."""
    passes = math.ceil(sources[0].size * (float(shares.sum()) / float(shares[0])) / batch_size - 1e-9)
    return -(-max(1, passes) // num_ranks) * num_ranks


def _check(
    sources: Sequence[Source], batch_size: int, epoch: int, mode: str, steps: int | None, num_ranks: int
) -> None:
    if mode not in MODES:
        raise ConfigError(f"mixture mode '{mode}'; modes: {', '.join(MODES)}.{nearest(mode, MODES)}")
    if not sources:
        raise ConfigError("a mixture needs at least one source")
    for source in sources:
        if source.size < 1:
            raise ConfigError(f"source '{source.name}' has {source.size} rows; give it rows or leave it out")
        if not (source.weight > 0 and math.isfinite(source.weight)):
            raise ConfigError(
                f"source '{source.name}' has weight {source.weight}; a weight is a positive number, "
                "and a source that is not wanted is left out"
            )
    numbers = {"batch_size": batch_size, "epoch": epoch, "num_ranks": num_ranks, "steps": steps}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigError(f"mixture: {name} is {value}; it counts from 1")


def seats(shares: npt.NDArray[np.float64], total: int) -> Ints:
    """Divide ``total`` rows by ``shares`` (Sainte-Lague): row j of source s has rank (j - 0.5) / share_s.

    Largest remainders taken anew for each total would be closer by a hair, but can give a source fewer rows
    for a larger total, that is a negative quota. Here the first n rows are always among the first n + 1.
    """
    count = len(shares)
    # what lies below this rank for certain, then the few rows around it in order
    rank = max(0.0, (total - count) / float(shares.sum()))
    sure = np.maximum(0, np.floor(rank * shares).astype(np.int64) - 1)
    missing = total - int(sure.sum())
    owner = np.repeat(np.arange(count), missing)
    keys = np.concatenate([_keys(shares[s], sure[s], sure[s] + missing) for s in range(count)])
    chosen = owner[np.argsort(keys, kind="stable")[:missing]]
    return sure + np.bincount(chosen, minlength=count)


def _keys(share: float, start: int, stop: int) -> npt.NDArray[np.float64]:
    return (np.arange(start, stop, dtype=np.float64) + 0.5) / share


def _walk(size: int, seed: int, source: int, start: int, stop: int) -> Ints:
    """Return rows ``start`` to ``stop`` of the endless sequence of permutations of ``size`` rows."""
    cycles = max(1, _BLOCK // size)
    block = cycles * size
    parts = [np.empty(0, np.int64)]
    for number in range(start // block, -(-stop // block)):
        rng = rng_for(seed, number, source, "mixture rows")
        rows = np.tile(np.arange(size), (cycles, 1))
        walk = (rng.permutation(size) if cycles == 1 else rng.permuted(rows, axis=1)).reshape(-1)
        parts.append(walk[max(0, start - number * block) : stop - number * block])
    return np.concatenate(parts)


def batches(
    size: int, batch_size: int, seed: int, epoch: int, shuffle: bool, skipped: int = 0
) -> Sequence[list[int]]:
    """Return the batches of one pass over a table: every row once, the last batch maybe smaller.

    ``shuffle``: a new permutation per (seed, epoch); otherwise the order of the file. ``skipped``: rows at the start
    of that order that are left out. ConfigError for sizes below 1.
    """
    if size < 1 or batch_size < 1:
        raise ConfigError(f"size {size} and batch_size {batch_size} must be at least 1")
    order = rng_for(seed, epoch, 0, "row order").permutation(size) if shuffle else np.arange(size)
    return _Rows(order[skipped:], batch_size)
