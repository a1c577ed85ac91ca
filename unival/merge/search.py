"""The best coefficients on validation tables: grid first, then refinement along the coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unival.errors import ConfigError
from unival.merge.recipe import MergeRecipe
from unival.merge.sweep import Point, Scorer, SweepRecipe, point_of

METHODS = ("average", "linear", "slerp", "fisher")


class _Enough(Exception):
    """As many points as asked for were tried."""


class _Objective:
    """Mean over the validation tables of score divided by the best single model's score there."""

    def __init__(self, recipe: SweepRecipe, scorer: Scorer) -> None:
        assert recipe.merge is not None and recipe.search is not None
        self.merge: MergeRecipe = recipe.merge
        self.search, self.scorer = recipe.search, scorer
        self.tables = recipe.named(recipe.search.validation)
        self.tried: dict[tuple[float, ...], float] = {}
        self.records: list[dict[str, Any]] = []
        self.reference: dict[str, float] = {}

    def scores(self, coefficients: Sequence[float]) -> dict[str, float]:
        records = self.scorer(self.point(coefficients), self.tables)
        self.records += records
        return {record["evaluation"]: record["score"] for record in records}

    def point(self, coefficients: Sequence[float]) -> Point:
        return point_of(self.merge, {"coefficients": tuple(coefficients)})

    def single_models(self) -> None:
        """Score each model alone: what a merge is measured by."""
        count = len(self.merge.models)
        alone = [tuple(float(k == j) for j in range(count)) for k in range(count)]
        scores = [self.scores(c) for c in alone]
        self.reference = {t.name: max(abs(s[t.name]) for s in scores) or 1.0 for t in self.tables}
        for coefficients, found in zip(alone, scores, strict=True):
            self.tried[coefficients] = self._value(found)

    def __call__(self, coefficients: Sequence[float]) -> float:
        total = float(sum(coefficients))
        if total <= 0:
            return 0.0
        rounded = np.round(np.asarray(coefficients) / total, self.search.digits)
        rounded[-1] = round(1 - float(rounded[:-1].sum()), self.search.digits)
        key = tuple(float(c) for c in np.clip(rounded, 0, 1))
        if key not in self.tried:
            if len(self.tried) >= self.search.evaluations:
                raise _Enough
            self.tried[key] = self._value(self.scores(key))
        return self.tried[key]

    def _value(self, scores: Mapping[str, float]) -> float:
        return float(np.mean([scores[name] / self.reference[name] for name in scores]))


def search(recipe: SweepRecipe, scorer: Scorer, grid: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return {"coefficients", "validation", "test", "tried", "records"}; the test tables are scored for the
    chosen coefficients only.

    ``grid``: coefficients to start from. Two models are refined by a bounded line search, more by Powell's
    coordinate search (scipy). Raises ConfigError for a method whose coefficients are no shares.
    """
    objective = _Objective(recipe, scorer)
    if objective.merge.method not in METHODS:
        raise ConfigError(f"search looks for shares of models; method '{objective.merge.method}' has none")
    objective.single_models()
    try:
        for coefficients in grid:
            objective(coefficients)
        _refine(objective)
    except _Enough:
        pass
    best = max(objective.tried, key=lambda c: objective.tried[c])
    tests = scorer(objective.point(best), recipe.named(objective.search.test))
    return {
        "coefficients": dict(zip([m.name for m in objective.merge.models], best, strict=True)),
        "validation": objective.tried[best],
        "single_models": [objective.tried[c] for c in objective.tried if max(c) == 1.0],
        "tried": [{"coefficients": list(c), "value": v} for c, v in objective.tried.items()],
        "test": tests,
        "records": objective.records + tests,
    }


def _refine(objective: _Objective) -> None:
    from scipy.optimize import minimize, minimize_scalar

    best = max(objective.tried, key=lambda c: objective.tried[c])
    tolerance = 10.0**-objective.search.digits
    if len(best) == 2:
        tried = sorted(c[0] for c in objective.tried)
        place = tried.index(best[0])
        low, high = tried[max(place - 1, 0)], tried[min(place + 1, len(tried) - 1)]
        minimize_scalar(
            lambda x: -objective((x, 1 - x)),
            bounds=(low, high),
            method="bounded",
            options={"xatol": tolerance},
        )
        return
    minimize(
        lambda c: -objective(c), np.array(best), method="Powell", bounds=[(0.0, 1.0)] * len(best),
        options={"xtol": tolerance, "ftol": 1e-4},
    )  # fmt: skip
