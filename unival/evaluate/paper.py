"""The columns and units in which the paper's tables print a score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unival.errors import ConfigError, nearest
from unival.metrics.java import JavaSettings, unavailable

# metric of a result -> what --metrics calls it
_CAPTION = {"cider": "cider", "rougel": "rouge", "meteor": "meteor", "spice": "spice"}
PROGRAMS = ("meteor", "spice")  # need Java
_CAPTION |= {f"bleu{n}": "bleu" for n in range(1, 5)}


@dataclass(frozen=True)
class Column:
    """A heading, the metrics that stand under it (the first that a result has), their factor, the digits shown."""

    title: str
    metrics: tuple[str, ...]
    scale: float
    digits: int


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper for one benchmark, with the columns of its test set's scores."""

    name: str
    unit: str
    columns: tuple[Column, ...]

    def caption_metrics(self) -> tuple[str, ...]:
        """What has to be computed for the columns, in the words of ``--metrics``; empty for other tasks."""
        named = [_CAPTION[m] for column in self.columns for m in column.metrics if m in _CAPTION]
        return tuple(dict.fromkeys(named))

    def values(self, metrics: Mapping[str, float]) -> list[float | None]:
        """Return the columns of a result in the paper's unit, None where it was not computed."""
        found = []
        for column in self.columns:
            name = next((m for m in column.metrics if m in metrics), None)
            found.append(None if name is None else metrics[name] * column.scale)
        return found

    def lines(self, rows: Iterable[tuple[str, Sequence[float | None]]]) -> list[str]:
        """Return the table as text: a heading, then one line per (label, values)."""
        width = max(8, *(len(column.title) for column in self.columns)) + 2
        text = [f"paper, table {self.name} ({self.unit})"]
        text.append("".join(f"{column.title:>{width}}" for column in self.columns))
        for label, values in rows:
            cells = [
                "-" if value is None else f"{value:.{column.digits}f}"
                for column, value in zip(self.columns, values, strict=True)
            ]
            text.append("".join(f"{cell:>{width}}" for cell in cells) + (f"   {label}" if label else ""))
        return text


def _table(name: str, unit: str, digits: int, **columns: str) -> PaperTable:
    scale = 1.0 if unit == "fractions" else 100.0
    made = (Column(t.replace("_", " "), tuple(m.split()), scale, digits) for t, m in columns.items())
    return PaperTable(name, unit, tuple(made))


_ANSWERS = "vqa_accuracy vqa_score"  # the official accuracy where it was asked for
_LONG = {"BLEU1": "bleu1", "BLEU2": "bleu2", "BLEU3": "bleu3", "BLEU4": "bleu4", "METEOR": "meteor"}
_AUDIO = {"CIDEr": "cider", "SPICE": "spice"}
_SHORT = {name: _LONG[name] for name in ("BLEU1", "BLEU2", "METEOR")}
_COCO = {"BLEU@4": "bleu4", "METEOR": "meteor", "CIDEr": "cider", "SPICE": "spice"}
_MSRVTT = {"B@4": "bleu4", "M": "meteor", "R": "rougel", "C": "cider"}
TABLES = {
    table.name: table
    for table in (
        _table("5", "percent", 2, **{"Acc@0.5": "score"}),
        _table("6 VQAv2", "percent", 1, Acc=_ANSWERS),
        _table("6 SNLI-VE", "percent", 1, Acc="snli_score"),
        _table("6 COCO", "percent", 1, **_COCO),
        _table("7", "percent", 2, Acc="vqa_score"),
        _table("8 MSRVTT", "percent", 2, **_MSRVTT),
        _table("8 ActivityNet", "percent", 2, **{"B@3": "bleu3", "B@4": "bleu4", "M": "meteor"}),
        _table("9", "fractions", 3, **_SHORT, **_AUDIO),
        _table("10 COCO", "percent", 2, CIDEr="cider"),
        _table("10 VQAv2", "percent", 2, Acc=_ANSWERS),
        _table("10 RefCOCO+", "percent", 2, **{"Acc@0.5": "score"}),
        _table("11 OKVQA", "percent", 2, Acc=_ANSWERS),
        _table("11 VizWiz", "percent", 2, Acc=_ANSWERS),
        _table("11 NoCaps", "percent", 2, CIDEr="cider"),
        _table("11 video questions", "percent", 2, Acc="vqa_score"),
        PaperTable(
            "19",
            "CLIPSIM in percent",
            (
                Column("FID", ("fid",), 1.0, 1),
                Column("CLIPSIM", ("score",), 100.0, 1),
                Column("IS", ("inception_score",), 1.0, 1),
            ),
        ),
        _table("21", "fractions", 3, **_LONG, **_AUDIO, ROUGEL="rougel"),
    )
}


def named(name: str | None) -> PaperTable:
    """Return a table. Raises ConfigError for an unknown one, or for none."""
    if name is None:
        raise ConfigError(
            "--paper: no recipe says which table of the paper this is; give --recipe configs/evaluate/..., or name "
            f"the table: {', '.join(TABLES)}"
        )
    known = {title.lower(): table for title, table in TABLES.items()}
    if name.lower() not in known:
        raise ConfigError(
            f"no table '{name}' of the paper; tables: {', '.join(TABLES)}.{nearest(name, TABLES)}"
        )
    return known[name.lower()]


def computable(table: PaperTable, settings: JavaSettings) -> tuple[tuple[str, ...], list[str]]:
    """Return the caption metrics of a table that can be computed here, and why the others cannot."""
    reasons = {name: unavailable(name, settings) for name in table.caption_metrics() if name in PROGRAMS}
    kept = tuple(name for name in table.caption_metrics() if not reasons.get(name))
    return kept, [reason for reason in reasons.values() if reason]


def shown(table: PaperTable, result: Mapping[str, Any], reasons: Iterable[str] = ()) -> list[str]:
    """Return a result of an evaluation in the paper's columns, and why some are empty."""
    return [*table.lines([("", table.values(result["metrics"]))]), *(f"  {reason}" for reason in reasons)]
