"""Seeded bootstrap: how far a score could move with another draw of items from the same population."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from unival.metrics.bleu import ORDER, bleu_of_counts

RESAMPLES, SEED = 1000, 0
Array = npt.NDArray[np.float64]


def resample(
    items: Array, resamples: int = RESAMPLES, seed: int = SEED, then: Callable[[Array], Array] | None = None
) -> Array:
    """Means of ``items`` (n, m) over items drawn with replacement: (resamples, m).

    ``then`` turns the sums of every draw into the statistic instead. Every column sees the same draws.
    """
    rng = np.random.default_rng(seed)
    n = len(items)
    draws = np.empty((resamples, items.shape[1]))
    weights = np.empty(n)
    for k in range(resamples):
        weights[:] = np.bincount(rng.integers(0, n, n), minlength=n)
        draws[k] = weights @ items
    return draws / n if then is None else then(draws)


def bleu_of_draws(sums: Array) -> Array:
    """BLEU 1 to 4 (resamples, 4) of summed counts (resamples, 10)."""
    return np.array([bleu_of_counts(row) for row in sums.tolist()])


def interval(draws: Array, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the draws of one statistic."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(
    metrics: Mapping[str, float],
    per_item: Mapping[str, Array],
    counts: Array | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of all metrics that are means over items, and of BLEU when ``counts`` are given.

    Document frequencies of CIDEr stay those of the whole set. Metrics that are neither get no interval.
    """
    found: dict[str, tuple[float, float]] = {}
    means = [
        name
        for name, values in per_item.items()
        if len(values) and abs(float(values.mean()) - metrics.get(name, np.inf)) < 1e-4
    ]
    if means:
        draws = resample(np.stack([per_item[name] for name in means], 1), resamples, seed)
        found = {name: interval(draws[:, k]) for k, name in enumerate(means)}
    if counts is not None and len(counts):
        draws = resample(counts, resamples, seed, bleu_of_draws)
        found |= {f"bleu{n + 1}": interval(draws[:, n]) for n in range(ORDER) if f"bleu{n + 1}" in metrics}
    return {name: found[name] for name in metrics if name in found}
