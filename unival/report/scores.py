"""Result files of ``unival evaluate`` and the table that puts each score beside its trivial baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.errors import DataError
from unival.evaluate.verdict import remarks

COLUMNS = ("task", "metric", "score", "95 % interval", "trivial baseline", "best possible", "n", "remark")
_NUMBERS = COLUMNS[2:-1]  # columns that are aligned at the right


@dataclass(frozen=True)
class Result:
    """One evaluated task.

    ``metrics``, ``baseline`` and ``best_possible`` map metric names to values, ``intervals`` to their ends;
    ``main_metric`` names the one that counts. ``remarks``: what is to be said beside the numbers, such as that the
    model has collapsed.
    ``items`` are examples with id, media, source (or question, text), prediction, references, box, true_box
    (x0, y0, x1, y1 in pixels of the original picture). Media start at ``media_root``; ``media_root`` and
    ``log`` may be relative to the working directory or to ``folder``, where the result file lies.
    """

    task: str
    modality: str
    metrics: Mapping[str, float]
    main_metric: str
    n: int
    baseline: Mapping[str, float] = field(default_factory=dict)
    best_possible: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    items: Sequence[Mapping[str, Any]] = ()
    table: str = ""
    checkpoint: str = ""
    media_root: str = ""
    log: str = ""
    folder: Path = Path()

    @property
    def name(self) -> str:
        """Return "video caption", "audio caption", "vqa": the modality is said unless it is the usual one."""
        words = self.task.replace("_", " ")
        return (
            words if self.modality in ("", "image") or self.modality in words else f"{self.modality} {words}"
        )

    def locate(self, path: str) -> Path:
        """Return a path of the result file as seen from the working directory."""
        return Path(path) if Path(path).exists() else self.folder / path


def read_result(source: str | Path | Mapping[str, Any]) -> Result:
    """Read a result file, or take a mapping of the same form. Keys that Result lacks are ignored.

    Raises DataError when the file is no JSON or a key is missing.
    """
    path = None if isinstance(source, Mapping) else Path(source)
    try:
        raw = source if isinstance(source, Mapping) else json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"expected a result file in JSON ({error})", path=str(path)) from error
    place = str(path) if path else None
    if not isinstance(raw, Mapping):
        raise DataError("expected a JSON object with the results of one task", path=place)
    for key in ("task", "metrics", "main_metric", "n"):
        if key not in raw:
            raise DataError(f"expected the key '{key}' in a result; present: {', '.join(raw)}", path=place)
    if raw["main_metric"] not in raw["metrics"]:
        found = ", ".join(raw["metrics"]) or "none"
        raise DataError(f"main_metric '{raw['main_metric']}' is not among the metrics: {found}", path=place)
    return Result(
        task=str(raw["task"]),
        modality=str(raw.get("modality") or ""),
        metrics=raw["metrics"],
        main_metric=raw["main_metric"],
        n=int(raw["n"]),
        baseline=raw.get("baseline") or {},
        best_possible=raw.get("best_possible") or {},
        intervals=raw.get("intervals") or {},
        remarks=remarks(raw),
        items=raw.get("items") or (),
        table=str(raw.get("table") or ""),
        checkpoint=str(raw.get("checkpoint") or ""),
        media_root=str(raw.get("media_root") or ""),
        log=str(raw.get("log") or ""),
        folder=path.parent if path else Path(),
    )


def score_rows(results: Sequence[Result], all_metrics: bool = False) -> list[tuple[str, ...]]:
    """Return COLUMNS as texts, one row per task, or one per metric with the main one first."""
    rows: list[tuple[str, ...]] = []
    for result in results:
        names = [result.main_metric]
        if all_metrics:
            names += [name for name in result.metrics if name != result.main_metric]
        for name in names:
            interval = " to ".join(number(end) for end in result.intervals.get(name, ()))
            remark = "; ".join(text.partition(":")[0] for text in result.remarks)
            rows.append(
                (
                    result.name,
                    name,
                    number(result.metrics[name]),
                    interval or "-",
                    number(result.baseline.get(name)),
                    number(result.best_possible.get(name)),
                    str(result.n),
                    remark if name == result.main_metric else "",
                )
            )
    return rows


def score_table(results: Sequence[Result], all_metrics: bool = False) -> str:
    """Return a Markdown table that also reads well on a terminal."""
    rows = [COLUMNS, *score_rows(results, all_metrics)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    numeric = [column in _NUMBERS for column in COLUMNS]

    def line(row: Sequence[str]) -> str:
        cells = (
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(cells)} |"

    rule = [f"{'-' * (w - 1)}{':' if right else '-'}" for w, right in zip(widths, numeric, strict=True)]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def number(value: float | None) -> str:
    """Write a score with three decimals, from 10 on with one; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
