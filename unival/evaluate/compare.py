"""Are two evaluations different beyond chance? Paired tests on the items both have scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unival.errors import ConfigError, DataError
from unival.evaluate.bootstrap import RESAMPLES, SEED, bleu_of_draws, interval, resample
from unival.metrics.bleu import bleu_of_counts
from unival.metrics.result import listing

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One metric of two runs. ``p`` is two-sided: McNemar's exact test where items are right or wrong, else
    the bootstrap's.

    ``a_only`` and ``b_only`` count items that only one of them has right (McNemar), None for other metrics.
    """

    metric: str
    a: float
    b: float
    low: float
    high: float
    p: float
    test: str
    n: int
    a_only: int | None = None
    b_only: int | None = None

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True)
class Scores:
    """Per-item scores of a result: ``values`` metric -> (n,), ``counts`` (n, 10) of BLEU or None."""

    keys: list[Any]
    values: dict[str, Array]
    counts: Array | None
    result: Mapping[str, Any]


def read_scores(source: str | Path) -> Scores:
    """Read the per-item scores beside a ``result.json``. Raises DataError when they are absent or damaged."""
    path = Path(source)
    path = path / "result.json" if path.is_dir() else path
    scores = path.parent / "scores.jsonl"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]
        task = result["task"]
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} does not exist; needed: result.json and scores.jsonl of 'unival evaluate'"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"is not a result of 'unival evaluate' ({error})", path=str(path)) from None
    if not lines:
        raise DataError("no item was scored", path=str(scores))
    names = [name for name in lines[0] if name not in ("row", "id", "bleu_counts")]
    try:
        values = {name: np.array([float(line[name]) for line in lines]) for name in names}
        counts = (
            np.array([line["bleu_counts"] for line in lines], float) if "bleu_counts" in lines[0] else None
        )
        keys = [line["id"] for line in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"is damaged ({error}); evaluate again to write it anew", path=str(scores)) from None
    if len(set(keys)) != len(keys):
        keys = [(line["row"], line["id"]) for line in lines]
    return Scores(keys, values, counts, {**result, "task": task})


def compare(
    a: Scores, b: Scores, resamples: int = 10 * RESAMPLES, seed: int = SEED, allow_partial: bool = False
) -> list[Comparison]:
    """Compare two runs on the same items, metric by metric; differences are b minus a.

    Every resample draws the same items for both. CIDEr keeps each run's document frequencies.
    Raises ConfigError for other tasks or scoring, DataError when the items differ (unless ``allow_partial``:
    then those of both are compared).
    """
    for name in ("task", "modality", "protocol"):
        if a.result.get(name) != b.result.get(name):
            raise ConfigError(f"the runs differ in {name}: '{a.result.get(name)}' and '{b.result.get(name)}'")
    theirs, ours = set(b.keys), set(a.keys)
    different = [key for key in (*a.keys, *b.keys) if (key in ours) != (key in theirs)]
    if different and not allow_partial:
        raise DataError(
            f"{len(different)} items are in one run only: {listing(different)}; evaluate both on one table, "
            "or compare the common ones with --allow-partial"
        )
    common = [key for key in a.keys if key in theirs]
    if not common:
        raise DataError("the runs have no item in common")
    rows_a, rows_b = _rows(a, common), _rows(b, common)
    names = [name for name in a.values if name in b.values]
    if not names:
        raise ConfigError("the runs have no metric in common")
    x = np.stack([a.values[name][rows_a] for name in names], 1)
    y = np.stack([b.values[name][rows_b] for name in names], 1)
    columns = [y - x]
    if a.counts is not None and b.counts is not None:
        columns += [a.counts[rows_a], b.counts[rows_b]]
    draws = resample(np.concatenate(columns, 1), resamples, seed)
    found = []
    for k, name in enumerate(names):
        mean_x, mean_y, differences = float(x[:, k].mean()), float(y[:, k].mean()), draws[:, k]
        if name.startswith("bleu") and len(columns) == 3:
            order, width = int(name[4:]) - 1, columns[1].shape[1]
            sums = draws[:, len(names) :] * len(common)
            mean_x, mean_y = (bleu_of_counts(c.sum(0).tolist())[order] for c in columns[1:])
            differences = bleu_of_draws(sums[:, width:])[:, order] - bleu_of_draws(sums[:, :width])[:, order]
        low, high = interval(differences)
        p, test, a_only, b_only = bootstrap_p(differences), "paired bootstrap", None, None
        if np.isin(x[:, k], (0.0, 1.0)).all() and np.isin(y[:, k], (0.0, 1.0)).all():
            a_only, b_only = int((x[:, k] > y[:, k]).sum()), int((y[:, k] > x[:, k]).sum())
            p, test = mcnemar(a_only, b_only), "McNemar, exact"
        found.append(Comparison(name, mean_x, mean_y, low, high, p, test, len(common), a_only, b_only))
    return found


def mcnemar(a_only: int, b_only: int) -> float:
    """Two-sided exact p-value: of the items that only one run has right, each is as likely to be either's."""
    from scipy.stats import binomtest

    n = a_only + b_only
    return float(binomtest(a_only, n).pvalue) if n else 1.0


def bootstrap_p(differences: Array) -> float:
    """Two-sided p-value: twice the smaller share of resamples on either side of zero, never 0."""
    n = len(differences)
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (n + 1)))


def _rows(scores: Scores, keys: list[Any]) -> list[int]:
    place = {key: k for k, key in enumerate(scores.keys)}
    return [place[key] for key in keys]
