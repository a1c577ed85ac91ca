"""What a sweep leaves: ``scores.csv``, ``sweep.json``, the plots, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unival.core.files import check_folder, make_folder, write_text
from unival.errors import DataError
from unival.merge.plots import Records, draw, names, scores_of
from unival.merge.search import search
from unival.merge.sweep import Scorer, SweepRecipe, grid_points

COLUMNS = ("point", "coefficients", "evaluation", "group", "metric", "score", "low", "high", "n")


def sweep(recipe: SweepRecipe, searching: bool = False, say: Any = print) -> dict[str, Any]:
    """Score every point and write the results; with ``searching`` look for the best coefficients instead.

    Returns the content of sweep.json. Raises what merging, evaluating and reading raise.
    """
    out = Path(recipe.out)
    check_folder(out)
    make_folder(out)
    evaluations = recipe.reported
    if searching and recipe.search is not None:
        evaluations = recipe.named((*recipe.search.validation, *recipe.search.test))
    for evaluation in evaluations:
        evaluation.check_targets()
    scorer = Scorer(recipe, say)
    points = grid_points(recipe)
    found: dict[str, Any] = {}
    if searching:
        starts = [p.values["coefficients"] for p in points if p.merge is not None]
        found = search(recipe, scorer, starts)
        records = found.pop("records")
        records = list({(r["point"], r["evaluation"]): r for r in records}.values())
    else:
        records = [record for point in points for record in scorer(point, evaluations)]
    models = [model.name for model in recipe.merge.models] if recipe.merge else []
    content = {
        "description": recipe.description,
        "method": recipe.merge.method if recipe.merge else None,
        "models": models,
        "fronts": [list(pair) for pair in recipe.fronts],
        **({"search": found} if searching else {}),
        "records": records,
    }
    name = "search" if searching else "sweep"
    write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_text(out / ("search.csv" if searching else "scores.csv"), to_csv(records))
    if not searching:
        draw([records], out, (models[0], models[1]) if len(models) == 2 else ("", ""), recipe.fronts)
    return content


def to_csv(records: Records) -> str:
    """One line per point and evaluation."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        shares = " ".join(f"{c:g}" for c in record["values"].get("coefficients", ()))
        writer.writerow([shares if column == "coefficients" else record[column] for column in COLUMNS])
    return text.getvalue()


def read_sweep(path: str | Path) -> dict[str, Any]:
    """Read a sweep.json, or that of a folder. Raises DataError for anything else."""
    path = Path(path) / "sweep.json" if Path(path).is_dir() else Path(path)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["records"][0]["score"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"is no result of 'unival merge sweep' ({error})", path=str(path)) from None
    return content


def table(runs: Sequence[Records]) -> str:
    """Markdown: one row per point, one column per evaluation; over several runs the mean and the range."""
    points, evaluations = names(runs[0], "point"), names(runs[0], "evaluation")
    metrics = {str(r["evaluation"]): str(r["metric"]) for r in runs[0]}
    lines = ["| point | " + " | ".join(f"{e} ({metrics[e]})" for e in evaluations) + " |"]
    lines.append("|---|" + "---:|" * len(evaluations))
    for point in points:
        cells = [_cell(scores_of(runs, point, evaluation)) for evaluation in evaluations]
        lines.append(f"| {point} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Any) -> str:
    if not len(values):
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def outcome(content: Mapping[str, Any]) -> str:
    """The result of a search in words."""
    found = content["search"]
    shares = ", ".join(f"{name} {share:g}" for name, share in found["coefficients"].items())
    lines = [
        f"chosen of {len(found['tried'])} points: {shares}",
        f"validation, relative to the best single model of each table: {found['validation']:.4f} "
        f"(single models {', '.join(f'{v:.4f}' for v in found['single_models'])})",
    ]
    lines += [f"test {r['evaluation']}: {r['metric']} {r['score']:.4f} (n = {r['n']})" for r in found["test"]]
    return "\n".join(lines)
