"""Seeded bootstrap: how far a score could move with another draw of items from the same population."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unival.metrics.bleu import ngram_counts

RESAMPLES, SEED, ORDER = 1000, 0, 4
Array = npt.NDArray[np.float64]
# BLEU's guards against 0/0, part of its official value
_TINY, _SMALL = 1e-15, 1e-9


def bleu_counts(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> npt.NDArray[np.float64]:
    """What corpus BLEU sums over captions (n, 10): matched and guessed 1- to 4-grams, the two lengths."""
    rows = []
    for words, refs in zip(candidates, references, strict=True):
        best: dict[tuple[str, ...], int] = {}
        for ref in refs:
            for gram, count in ngram_counts(ref, ORDER).items():
                best[gram] = max(best.get(gram, 0), count)
        matched = [0] * ORDER
        for gram, count in ngram_counts(words, ORDER).items():
            matched[len(gram) - 1] += min(count, best.get(gram, 0))
        length = len(words)
        target = min((abs(len(ref) - length), len(ref)) for ref in refs)[1]
        rows.append([*matched, *(max(0, length - n) for n in range(ORDER)), length, target])
    return np.array(rows, dtype=np.float64).reshape(-1, 2 * ORDER + 2)


def bleu_of_counts(sums: Array) -> Array:
    """BLEU 1 to 4, (..., 4), of summed counts (..., 10)."""
    matched, guessed = sums[..., :ORDER], sums[..., ORDER : 2 * ORDER]
    precision = np.cumsum(np.log((matched + _TINY) / (guessed + _SMALL)), axis=-1) / np.arange(1, ORDER + 1)
    ratio = (sums[..., -2] + _TINY) / (sums[..., -1] + _SMALL)
    penalty = np.where(ratio < 1, 1 - 1 / np.minimum(ratio, 1), 0.0)
    return np.exp(precision + penalty[..., None])


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
        draws = resample(counts, resamples, seed, bleu_of_counts)
        found |= {f"bleu{n + 1}": interval(draws[:, n]) for n in range(ORDER) if f"bleu{n + 1}" in metrics}
    return {name: found[name] for name in metrics if name in found}
