"""The paper's plots of a sweep: fronts of two tasks, scores against lambda, bars per group of tables.

Several sweeps of the same points (one per seed) are drawn together: the mean, and their range as a band. The band
of a single sweep is the bootstrap's 95 % interval.
Source: paper Figures 2, 3 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from unival.core.files import replacing

INK = ("#3465a4", "#d9480f", "#2f9e44", "#9c36b5", "#e8a400", "#0b7285")
Records = Sequence[Mapping[str, Any]]


def scores_of(runs: Sequence[Records], point: str, evaluation: str) -> np.ndarray:
    """Scores of one point on one evaluation, one per run that has it."""
    found = [r["score"] for run in runs for r in run if (r["point"], r["evaluation"]) == (point, evaluation)]
    return np.array(found, float)


def with_lambda(run: Records) -> dict[str, float]:
    """Labels of the points of an interpolation with their lambda, rising."""
    found = {r["point"]: float(r["values"]["lambda"]) for r in run if "lambda" in r["values"]}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def names(run: Records, field: str) -> list[str]:
    """Distinct values of a field, in the order of their first record."""
    return list(dict.fromkeys(str(r[field]) for r in run))


def draw(
    runs: Sequence[Records],
    folder: str | Path,
    models: tuple[str, str] = ("first model", "second model"),
    fronts: Sequence[tuple[str, str]] = (),
) -> list[Path]:
    """Write the plots that the records allow into ``folder`` and return their files."""
    folder = Path(folder)
    written = []
    line = with_lambda(runs[0])
    if len(line) > 1:
        evaluations = names([r for r in runs[0] if r["point"] in line], "evaluation")
        written.append(_save(_curves(runs, line, evaluations, models), folder / "curves.png"))
        group = runs[0][0]["group"]
        inside = names([r for r in runs[0] if r["point"] in line and r["group"] == group], "evaluation")
        pairs = list(fronts) or list(combinations(inside, 2))[:6]
        if pairs:
            written.append(_save(_fronts(runs, line, pairs), folder / "fronts.png"))
    fixed = [r for r in runs[0] if r["point"] not in line]
    if len(names(fixed, "point")) > 1:
        written.append(_save(_bars(runs, names(fixed, "point"), fixed), folder / "bars.png"))
    return written


def _figure(columns: int, rows: int = 1, width: float = 3.2, height: float = 2.7) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.tight_layout()
    with replacing(path) as part:
        figure.savefig(part, dpi=120, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return path


def _metric(run: Records, evaluation: str) -> str:
    return next(str(r["metric"]) for r in run if r["evaluation"] == evaluation)


def _curves(
    runs: Sequence[Records], line: Mapping[str, float], evaluations: Sequence[str], models: tuple[str, str]
) -> Any:
    """Score against lambda, one panel per evaluation, with the two models themselves at the ends."""
    columns = min(4, len(evaluations))
    figure, axes = _figure(columns, -(-len(evaluations) // columns))
    for axis in axes.flat[len(evaluations) :]:
        axis.axis("off")
    x = np.array(list(line.values()))
    for axis, evaluation, ink in zip(axes.flat, evaluations, INK * 9, strict=False):
        values = [scores_of(runs, point, evaluation) for point in line]
        mean = np.array([v.mean() for v in values])
        axis.plot(x, mean, "o-", color=ink, markersize=4)
        band = _intervals(runs[0], line, evaluation)
        if len(runs) > 1:
            band = [v.min() for v in values], [v.max() for v in values]
        if band is not None:
            axis.fill_between(x, *band, color=ink, alpha=0.15, linewidth=0)
        for end in (0, -1):
            if x[end] in (0.0, 1.0):
                axis.axhline(mean[end], color=ink, linewidth=0.8, linestyle=":")
        axis.set_title(evaluation, fontsize=9)
        axis.set_ylabel(_metric(runs[0], evaluation), fontsize=8)
        axis.set_xlabel(f"lambda (0: {models[1]}, 1: {models[0]})", fontsize=7)
    return figure


def _intervals(
    run: Records, line: Mapping[str, float], evaluation: str
) -> tuple[list[float], list[float]] | None:
    """Bootstrap intervals along the line, where every score has one."""
    mine = {r["point"]: r for r in run if r["evaluation"] == evaluation}
    ends = [
        [float(v) for point in line if (v := mine[point].get(end)) is not None] for end in ("low", "high")
    ]
    return (ends[0], ends[1]) if len(ends[0]) == len(ends[1]) == len(line) else None


def _fronts(runs: Sequence[Records], line: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> Any:
    """One task against another along the interpolation; the straight line between the ends is dotted."""
    columns = min(3, len(pairs))
    figure, axes = _figure(columns, -(-len(pairs) // columns), 3.6, 3.1)
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for axis, (first, second), ink in zip(axes.flat, pairs, INK * 9, strict=False):
        for run in runs if len(runs) > 1 else ():
            axis.plot(
                *(_along([run], line, e) for e in (first, second)), "-", color=ink, alpha=0.25, linewidth=0.8
            )
        x, y = (_along(runs, line, e) for e in (first, second))
        axis.plot(x, y, "o-", color=ink, markersize=4)
        axis.plot(x[[0, -1]], y[[0, -1]], ":", color="#888", linewidth=1)
        for k, value in enumerate(line.values()):
            axis.annotate(f"{value:g}", (x[k], y[k]), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axis.set_xlabel(f"{first} ({_metric(runs[0], first)})", fontsize=8)
        axis.set_ylabel(f"{second} ({_metric(runs[0], second)})", fontsize=8)
        axis.set_title("labels: lambda", fontsize=8, color="#888")
    return figure


def _along(runs: Sequence[Records], line: Mapping[str, float], evaluation: str) -> np.ndarray:
    return np.array([scores_of(runs, point, evaluation).mean() for point in line])


def relative(runs: Sequence[Records], points: Sequence[str], group: str) -> dict[str, np.ndarray]:
    """Mean over a group's evaluations of score divided by the best of ``points`` there, per point and run."""
    inside = names([r for r in runs[0] if r["group"] == group], "evaluation")
    table = {p: np.stack([scores_of(runs, p, e) for e in inside]) for p in points}
    best = np.max([values.mean(1) for values in table.values()], 0)
    best = np.where(best == 0, 1.0, best)
    return {point: (values / best[:, None]).mean(0) for point, values in table.items()}


def _bars(runs: Sequence[Records], points: Sequence[str], fixed: Records) -> Any:
    """One panel per group of tables; a bar is the mean over its tables, relative to the best point of each."""
    groups = names(fixed, "group")
    figure, axes = _figure(len(groups), 1, max(2.6, 0.55 * len(points) + 1), 3.0)
    for axis, group in zip(axes.flat, groups, strict=True):
        values = relative(runs, points, group)
        means = [v.mean() for v in values.values()]
        spread = [[m - v.min() for m, v in zip(means, values.values(), strict=True)]]
        spread.append([v.max() - m for m, v in zip(means, values.values(), strict=True)])
        bars = axis.bar(
            range(len(points)), means, color=[INK[k % len(INK)] for k in range(len(points))], alpha=0.85
        )
        if len(runs) > 1:
            axis.errorbar(range(len(points)), means, spread, fmt="none", color="#333", capsize=3, linewidth=1)
        axis.bar_label(bars, [f"{m:.2f}" for m in means], fontsize=8, label_type="center", color="white")
        axis.set_xticks(range(len(points)), points, fontsize=7, rotation=25, ha="right")
        axis.set_title(group, fontsize=9)
        axis.set_ylim(0, 1.15 * max(*means, 1e-9, *(v.max() for v in values.values())))
    axes[0][0].set_ylabel("mean score relative to the best", fontsize=8)
    return figure
