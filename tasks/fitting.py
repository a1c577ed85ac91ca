"""The largest batch whose step fits in memory, by the plan's estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unival.errors import ConfigError
from unival.modeling.memory import MIB

ROOM = 0.85  # of the memory; runs have taken up to 15 % more than estimated (benchmarks/plan_memory.py)
MOST = 4096  # rows; larger batches are not looked for


@dataclass(frozen=True)
class Fitted:
    """The largest batch that fits: its rows, the estimated bytes of its step, and the bytes that there are."""

    rows: int
    peak: int
    limit: int
    all_rows: bool = False  # of the training table

    @property
    def line(self) -> str:
        """What a terminal shows of it."""
        whole = ", which are all rows of the training table" if self.all_rows else ""
        return (
            f"largest batch: --batch-size {self.rows}{whole}, with about {self.peak / MIB:,.0f} of "
            f"{self.limit / MIB:,.0f} MiB ({1 - ROOM:.0%} are kept free)"
        )


def fit(peak: Callable[[int], int], limit: int, start: int, table: int) -> Fitted:
    """Search for the most rows of a batch by doubling and halving.

    peak: estimated bytes of a step of so many rows; limit: bytes that there are; start: rows to begin with; table: rows
    of the training table, which no batch exceeds.

    Raises:
        ConfigError: a single row takes more.
    """
    known: dict[int, int] = {}
    most = min(table, MOST)
    fits, exceeds, rows = 0, most + 1, min(start, most)
    while exceeds - fits > 1:
        known[rows] = peak(rows)
        if known[rows] <= ROOM * limit:
            fits = rows
        else:
            exceeds = rows
        rows = min(2 * fits, (fits + exceeds) // 2) if fits else exceeds // 2
    if not fits:
        raise ConfigError(
            f"--fit: a step of one row takes about {known[1] / MIB:,.0f} MiB of {limit / MIB:,.0f} MiB, of which "
            f"{1 - ROOM:.0%} are kept free. Take a smaller model or smaller media, bf16, or checkpoint_activations"
        )
    return Fitted(fits, known[fits], limit, fits == table)
