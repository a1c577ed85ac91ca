"""Curves from ``train_log.jsonl``: one JSON object a line with update, loss, split and a validation's scores."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unival.errors import DataError

Curve = list[tuple[float, float]]
COLOURS = {"train": "#3465a4", "valid": "#d9480f", "score": "#2b8a3e"}


def read_log(path: str | Path, value: str = "loss") -> dict[str, Curve]:
    """Return the (update, loss) points of each split, in the order of the updates; of another ``value``, those of the
    lines that have it.

    A resumed run repeats updates: the later line counts. A last line without its end (a run that is being
    written, or was killed) is left out. Raises DataError for any other line that is not as expected.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise DataError(f"expected a training log ({error.strerror})", path=str(path)) from error
    points: dict[str, dict[float, float]] = {}
    for k, line in enumerate(lines[:-1], 1):  # what follows the last newline is empty or unfinished
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            update, _ = float(entry["update"]), float(entry["loss"])
            split = str(entry.get("split", "train"))
            if value not in entry:
                continue
            point = float(entry[value])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                'expected {"update": ..., "loss": ..., "split": ...}', path=str(path), line=k
            ) from error
        points.setdefault(split, {})[update] = point
    return {split: sorted(values.items()) for split, values in points.items()}


def smoothed(losses: np.ndarray, width: int) -> np.ndarray:
    """Return the moving mean over ``width`` points, over fewer at both ends."""
    window = np.ones(width)
    return np.convolve(losses, window, "same") / np.convolve(np.ones_like(losses), window, "same")


def draw_curves(
    logs: Mapping[str, dict[str, Curve]],
    scores: Mapping[str, tuple[str, Curve]] | None = None,
    columns: int = 4,
) -> bytes:
    """Draw one small chart per run and return a PNG. Splits other than "train" count as validation.

    ``scores``: by run, the name of a metric and its curve in validations, drawn on an axis of its own in place of their
    loss, which for captions is that of all references in a row and rises while the captions improve.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(columns, len(logs))
    rows = -(-len(logs) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.1 * columns, 2.3 * rows), squeeze=False)
    for axis in axes.flat[len(logs) :]:
        axis.axis("off")
    for axis, (name, splits) in zip(axes.flat, logs.items(), strict=False):
        metric, values = (scores or {}).get(name, ("", []))
        for split, points in splits.items():
            if split != "train" and values:
                continue
            colour = COLOURS["train" if split == "train" else "valid"]
            updates, losses = (np.array(numbers) for numbers in zip(*points, strict=True))
            if split != "train":
                axis.plot(updates, losses, "o-", color=colour, markersize=3, linewidth=1.2, label=split)
            elif len(losses) < 40:
                axis.plot(updates, losses, color=colour, label=split)
            else:
                axis.plot(updates, losses, color=colour, alpha=0.25, linewidth=0.7)
                axis.plot(updates, smoothed(losses, len(losses) // 20), color=colour, label=split)
        shown = axis.get_legend_handles_labels()
        if values:
            right = axis.twinx()
            right.plot(
                *zip(*values, strict=True),
                "o-",
                color=COLOURS["score"],
                markersize=3,
                linewidth=1.2,
                label=metric,
            )
            right.set_ylim(0, 1.05 * max(value for _, value in values) or 1)
            right.tick_params(labelsize=7, colors=COLOURS["score"])
            right.spines[["top", "left"]].set_visible(False)
            shown = tuple(a + b for a, b in zip(shown, right.get_legend_handles_labels(), strict=True))
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if splits:
            place = "center right" if values else "best"  # between a loss that falls and a score that rises
            axis.legend(*shown, fontsize=7, frameon=False, loc=place)
    for row in axes:
        row[0].set_ylabel("loss", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("update", fontsize=8)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()
