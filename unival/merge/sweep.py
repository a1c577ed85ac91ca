"""Scores of merged models over a grid of settings: cached per point, so that a stopped sweep goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from unival.core.files import make_folder, write_text
from unival.core.provenance import file_hash, sha256
from unival.errors import ConfigError, nearest
from unival.evaluate.recipe import read_recipe
from unival.evaluate.runner import evaluate
from unival.merge.recipe import MergeRecipe, built
from unival.merge.run import merge
from unival.merge.tables import Measured

# Fields of a merge that a grid may vary, beside lambda, coefficients and simplex.
VARIED = ("method", "scale", "density", "seed", "batchnorm")
COEFFICIENTS = ("lambda", "coefficients", "simplex")
VALIDATION = "validation"  # group of the evaluations that only a search looks at


@dataclass(frozen=True)
class Search:
    """Best coefficients on some of the evaluations. validation: their names; test: names of those that only the
    chosen point is scored on; evaluations: most points to try; digits: of a coefficient."""

    validation: tuple[str, ...]
    test: tuple[str, ...]
    evaluations: int = 20
    digits: int = 3


@dataclass(frozen=True)
class SweepRecipe:
    """A sweep. merge: what is merged, its ``out`` unused. evaluations: tables that every point is scored on.

    Evaluations of the group "validation" are for a search alone.
    grid: field -> values, every combination is a point: "lambda" (weight of the first of two models),
    "coefficients" (lists), "simplex" (N: all coefficients that are multiples of 1/N), or one of VARIED.
    also: name -> checkpoint that is scored as it is. keep: leave the merged checkpoints in place.
    fronts: pairs of evaluation names to plot against each other (default: all pairs of the first group).
    search: see Search. Raises ConfigError for what cannot be meant.
    """

    out: str
    evaluations: tuple[Measured, ...]
    merge: MergeRecipe | None = None
    grid: Mapping[str, Any] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)
    keep: bool = False
    fronts: tuple[tuple[str, str], ...] = ()
    search: Search | None = None
    description: str = ""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "evaluations", tuple(built(e, Measured) for e in self.evaluations))
        names = [e.name for e in self.evaluations]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"evaluations {names}: at least one, and each needs a 'name' of its own")
        if self.merge is not None:
            given = (
                {"out": os.path.join(self.out, "merged"), **self.merge}
                if isinstance(self.merge, Mapping)
                else {}
            )
            set_(self, "merge", built(given or self.merge, MergeRecipe))
        if self.grid and self.merge is None:
            raise ConfigError("'grid' needs 'merge', the models that are merged at every point")
        if not self.grid and not self.also and self.search is None:
            raise ConfigError("nothing to score: give 'grid', 'also' or 'search'")
        for name in self.also:
            if name != Path(name).name:
                raise ConfigError(f"the name '{name}' under 'also' is used as a folder's name; leave out '/'")
        for name in self.grid:
            if name not in (*COEFFICIENTS, *VARIED):
                known = (*COEFFICIENTS, *VARIED)
                raise ConfigError(
                    f"unknown grid field '{name}'; fields: {', '.join(known)}.{nearest(name, known)}"
                )
        if sum(name in COEFFICIENTS for name in self.grid) > 1:
            raise ConfigError(f"a grid takes one of {', '.join(COEFFICIENTS)}")
        set_(self, "fronts", tuple((str(a), str(b)) for a, b in self.fronts))
        if self.search is not None:
            set_(self, "search", built(self.search, Search))
            if self.merge is None:
                raise ConfigError("'search' needs 'merge', the models whose coefficients are looked for")
            self.named((*self.search.validation, *self.search.test))  # type: ignore[union-attr]
        self.named([name for pair in self.fronts for name in pair])
        if (self.grid or self.also) and self.search is None and not self.reported:
            raise ConfigError(
                f"all evaluations are of the group '{VALIDATION}', which only a search looks at"
            )

    @property
    def reported(self) -> list[Measured]:
        """The evaluations that a sweep scores all its points on: all but those of the group ``validation``."""
        return [e for e in self.evaluations if e.group != VALIDATION]

    def named(self, names: Any) -> list[Measured]:
        """Return evaluations by name. Raises ConfigError for an unknown one."""
        known = {e.name: e for e in self.evaluations}
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"no evaluation is named '{name}'; there are {', '.join(known)}.{nearest(name, known)}"
                )
        return [known[name] for name in names]


@dataclass(frozen=True)
class Point:
    """One place of the grid: its label, the values that make it, and the merge (or the checkpoint as it is)."""

    label: str
    values: Mapping[str, Any]
    merge: MergeRecipe | None = None
    checkpoint: str | None = None


def grid_points(recipe: SweepRecipe) -> list[Point]:
    """All points of the grid, then the checkpoints of ``also``."""
    points = []
    if recipe.grid:
        assert recipe.merge is not None
        axes = {name: list(_axis(recipe.merge, name, value)) for name, value in recipe.grid.items()}
        for combination in product(*axes.values()):
            points.append(point_of(recipe.merge, dict(zip(axes, combination, strict=True))))
    return points + [Point(name, {}, checkpoint=path) for name, path in recipe.also.items()]


def point_of(base: MergeRecipe, values: Mapping[str, Any]) -> Point:
    """The point of a merge with some of its fields replaced."""
    coefficients = values.get("coefficients", values.get("simplex"))
    changes = {name: values[name] for name in values if name in VARIED}
    parts = [
        f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}"
        for name, value in changes.items()
    ]
    if "lambda" in values:
        coefficients = (values["lambda"], 1 - values["lambda"])
        parts.insert(0, f"l{values['lambda']:.3f}".rstrip("0").rstrip("."))
    elif coefficients is not None:
        parts.insert(0, "c" + "-".join(f"{c:.3f}".rstrip("0").rstrip(".") for c in coefficients))
    made = (
        base.with_coefficients(coefficients, **changes)
        if coefficients is not None
        else replace(base, **changes)
    )
    shown = {**changes, **({"lambda": values["lambda"]} if "lambda" in values else {})}
    return Point("_".join(parts) or "merge", {**shown, "coefficients": list(made.coefficients)}, made)


def _axis(merge: MergeRecipe, name: str, value: Any) -> Iterator[Any]:
    count = len(merge.models)
    if name == "lambda":
        if count != 2:
            raise ConfigError(f"'lambda' interpolates two models, the merge has {count}; take 'simplex'")
        yield from (float(x) for x in value)
    elif name == "simplex":
        steps = int(value)
        yield from (tuple(k / steps for k in split) for split in _splits(steps, count))
    elif name == "coefficients":
        yield from (tuple(float(c) for c in row) for row in value)
    else:
        yield from value


def _splits(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write ``total`` as a sum of ``parts`` numbers, the largest first number first."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        yield from ((first, *rest) for rest in _splits(total - first, parts - 1))


class Scorer:
    """Scores points on evaluations; what was scored before with the same inputs is read back.

    Each score lies in ``<out>/points/<label>/<evaluation>/score.json`` beside the evaluation's own files.
    """

    def __init__(self, recipe: SweepRecipe, say: Callable[[str], None] = print) -> None:
        self.recipe, self.say = recipe, say
        self._hashes: dict[str, str] = {}

    def __call__(self, point: Point, evaluations: list[Measured]) -> list[dict[str, Any]]:
        """Return one record per evaluation: point, values, evaluation, group, metric, score, low, high, n.

        Raises what merging and evaluation raise.
        """
        keys = {e.name: self._key(point, e) for e in evaluations}
        found = {e.name: self._cached(point, e, keys[e.name]) for e in evaluations}
        pending = [e for e in evaluations if found[e.name] is None]
        if pending:
            folder = self._folder(point)
            checkpoint = point.checkpoint or str(folder / "model")
            if point.merge is not None:
                merge(replace(point.merge, out=checkpoint), lambda line: self._warn(line))
            for evaluation in pending:
                found[evaluation.name] = self._score(point, evaluation, checkpoint, keys[evaluation.name])
            if point.merge is not None and not self.recipe.keep:
                shutil.rmtree(checkpoint)
        return [record for e in evaluations if (record := found[e.name]) is not None]

    def _folder(self, point: Point) -> Path:
        return Path(self.recipe.out) / "points" / point.label

    def _warn(self, line: str) -> None:
        if line.startswith("warning"):
            self.say(line)

    def _hash(self, path: str) -> str:
        if path not in self._hashes:
            self._hashes[path] = file_hash(path)
        return self._hashes[path]

    def _key(self, point: Point, evaluation: Measured) -> str:
        """Digest of everything that decides a score: weights, settings, recipe and table."""
        if point.merge is not None:
            settings = {f.name: getattr(point.merge, f.name) for f in fields(point.merge)}
            for name in ("out", "description", "models", "parts", "recompute"):
                settings.pop(name)
            nested = [[asdict(x) for x in point.merge.models], [asdict(x) for x in point.merge.parts]]
            nested.append([asdict(x) for x in point.merge.recompute])
            inputs = [m.path for m in point.merge.models] + [m.fisher for m in point.merge.models if m.fisher]
            inputs += [point.merge.base] if point.merge.base else []
            made: Any = [settings, nested, [self._hash(path) for path in inputs]]
        else:
            made = self._hash(str(point.checkpoint))
        recipe = read_recipe(evaluation.recipe)
        table = evaluation.table or recipe.table
        path = table.get("path") if isinstance(table, Mapping) else table
        rows = sha256([path]) if path and Path(path).is_file() else None
        identity = [made, {**asdict(evaluation), "group": None}, asdict(recipe), rows]
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()

    def _cached(self, point: Point, evaluation: Measured, key: str) -> dict[str, Any] | None:
        path = self._folder(point) / evaluation.name / "score.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return {**stored["record"], "group": evaluation.group} if stored.get("key") == key else None

    def _score(self, point: Point, evaluation: Measured, checkpoint: str, key: str) -> dict[str, Any]:
        out = self._folder(point) / evaluation.name
        begun = out / "begun.json"  # predictions of a stopped run are gone on with, those of another are not
        same = begun.is_file() and begun.read_text(encoding="utf-8") == key
        if not same and (out / "run.json").is_file():
            shutil.rmtree(out)
        make_folder(out)
        write_text(begun, key)
        result = evaluate(evaluation.request(checkpoint, out))
        assert result is not None
        metric = result["main_metric"]
        low, high = result["intervals"].get(metric, (None, None))
        record = {
            "point": point.label,
            "values": dict(point.values),
            "evaluation": evaluation.name,
            "group": evaluation.group,
            "metric": metric,
            "score": result["metrics"][metric],
            "low": low,
            "high": high,
            "n": result["n"],
            "metrics": result["metrics"],
        }
        write_text(out / "score.json", json.dumps({"key": key, "record": record}, indent=1))
        self.say(
            f"{point.label:>14}  {evaluation.name:<20} {metric} {record['score']:.4f}  (n = {record['n']})"
        )
        return record
