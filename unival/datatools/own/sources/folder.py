"""Folders of media: with a table beside the files, or with the label as the name of each sub-folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from unival.datatools.own.parts import COLUMN, part_name
from unival.datatools.own.report import HIDDEN, UNUSABLE, Report
from unival.datatools.own.request import Request
from unival.errors import ConfigError, DataError, RowNumber, nearest
from unival.media.endings import ENDINGS
from unival.media.names import files_below, is_hidden
from unival.specs import TaskSpec
from unival.specs.base import is_absent, located
from unival.tables import JsonlTable, Row, Table, open_table
from unival.tables.delimited import separator_hint
from unival.vocabulary.boxes import not_shares

# Names under which people keep a field; the field's own name always counts.
USUAL = {
    "image": ("file", "filename", "file_name", "path", "image_path", "img", "image_file", "image_id"),
    "video": ("file", "filename", "file_name", "path", "video_path", "clip", "video_id"),
    "audio": ("file", "filename", "file_name", "path", "audio_path", "sound", "wav"),
    "caption": ("text", "sentence", "description", "title", "captions", "label"),
    "text": ("phrase", "expression", "caption", "sentence", "description", "label"),
    "question": ("query", "prompt"),
    "answer": ("answers", "label"),
    "hypothesis": ("sentence2", "text", "sentence"),
    "label": ("gold_label", "answer", "class"),
    "box": ("bbox", "boxes", "region"),
}
_LOOKED_AT = 100  # rows of a JSONL file whose keys are its columns
_CORNERS = {"xyxy": ("x0", "y0", "x1", "y1"), "xywh": ("x", "y", "w", "h")}


def tables_in(folder: Path) -> dict[Path, str | None]:
    """Return the tables of a folder with their part of the data: one, or several that are named by their part
    (train.csv, val.csv). ConfigError for other tables beside each other."""
    tables = (p for p in sorted(folder.iterdir()) if not is_hidden(p.name) and not p.is_dir())
    found = [p for p in tables if p.suffix.lower() in (".csv", ".tsv", ".jsonl")]
    parts = {path: part_name(path.stem) for path in found}
    if len(found) > 1 and (None in parts.values() or len(set(parts.values())) < len(parts)):
        names = ", ".join(p.name for p in found)
        raise ConfigError(f"{folder} has several tables ({names}); name the one you mean")
    return dict(parts) if len(found) > 1 else dict.fromkeys(found)


def read_rows(
    path: Path, request: Request, media: Path, report: Report, split: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a table under the task's field names, media as paths below ``media``.

    ``split``: the part that all of them belong to, where the table is one of several.
    """
    table, spec, box_format = open_table(path), request.spec, request.box_format
    named = _columns(table, spec, request.columns, box_format)
    for row in table:
        try:
            values = {
                name: _value(row, name, column, box_format)
                for name, column in named.items()
                if isinstance(column, tuple) or column in row
            }
        except DataError as error:
            report.add(UNUSABLE, str(error))
            continue
        medium = values.get(spec.modality)
        if isinstance(medium, int) and not isinstance(medium, bool):  # a number that names its file
            medium = str(medium)
        if isinstance(medium, str) and medium.strip():
            values[spec.modality] = _locate(media, medium, spec.modality)
        for name in ("id", *request.keep):
            if name in row:
                values.setdefault(name, row[name])
        if split is not None:
            values[COLUMN] = split
        yield Row(values, row.path, row.line)


def read_folder(folder: Path, spec: TaskSpec, report: Report) -> Iterator[Row]:
    """Yield one row per media file: its sub-folder's name is the target, such as a caption (underscores become blanks).

    The sub-folders may stand in folders named by their part of the data (``train/dog_bark/1.wav``).

    Raises:
        ConfigError: a task that needs more than that. DataError: no media in the sub-folders.
    """
    if spec.asked or spec.answer is None:
        raise ConfigError(
            f"{folder} has no table; task '{spec.name}' needs one with {', '.join(f.name for f in spec.fields)}"
        )
    names, hidden = files_below(folder)
    report.add(HIDDEN, count=hidden)
    files = []
    for name in names:
        if os.path.splitext(name)[1].lower() not in ENDINGS[spec.modality]:
            report.add(f"files that are no {spec.modality} ({', '.join(ENDINGS[spec.modality])})", name)
        elif name.count(os.sep) == 1 or (name.count(os.sep) == 2 and part_name(name.split(os.sep)[0])):
            files.append(name)
        else:
            report.add(f"{spec.modality} files that do not stand in a folder named by their label", name)
    if not files:
        raise DataError(
            f"no table (.csv, .tsv, .jsonl) and no {spec.modality} files in sub-folders named by their label",
            path=str(folder),
        )
    for number, name in enumerate(files, 1):
        *part, label, _ = name.split(os.sep)
        values = {spec.modality: str(folder / name), spec.answer.name: label.replace("_", " ")}
        values |= {COLUMN: part[0]} if part else {}
        yield Row(values, str(folder), RowNumber(number))


def _columns(
    table: Table, spec: TaskSpec, given: Mapping[str, str], box_format: str
) -> dict[str, str | tuple[str, ...]]:
    names = [f.name for f in spec.fields]
    for name in given:
        if name not in names:
            raise ConfigError(
                f"--columns {name}=...: task '{spec.name}' has no such field.{nearest(name, names)}"
            )
    # lines of JSON may have keys that the first one lacks
    columns = dict.fromkeys(table.columns)
    if isinstance(table, JsonlTable):
        for row in islice(table, _LOOKED_AT):
            columns |= dict.fromkeys(row)
    lower = {column.lower().strip(): column for column in columns}
    found: dict[str, str | tuple[str, ...]] = {}
    for item in spec.fields:
        # a field that a task can do without is only taken by its own name: 'label' is no premise caption
        usual = USUAL.get(item.name, ()) if item.required or item.target else ()
        choices = (given[item.name],) if item.name in given else (item.name, *usual)
        hit = next((lower[c.lower()] for c in choices if c.lower() in lower), None)
        corners = _CORNERS[box_format]
        if hit is not None and hit not in found.values():
            found[item.name] = hit
        elif item.name == "box" and all(c in lower for c in corners):
            found["box"] = tuple(lower[c] for c in corners)
        elif item.required:
            raise ConfigError(
                f"{table.path}: no column for '{item.name}' among {', '.join(columns)}; "
                f"name it: --columns {item.name}=COLUMN{separator_hint(list(columns), table.path)}"
            )
    return found


def _value(row: Row, name: str, column: str | tuple[str, ...], box_format: str) -> Any:
    if isinstance(column, tuple):
        return to_corners([row[c] for c in column], box_format, row)
    value = row[column]
    turned = name == "box" and box_format == "xywh" and not is_absent(value)
    return to_corners(value, box_format, row) if turned else value


def to_corners(value: Any, box_format: str, row: Row) -> list[float]:
    """Return x0, y0, x1, y1 of a box given as four numbers, or as text with commas or blanks."""
    try:
        parts = value.replace(",", " ").split() if isinstance(value, str) else list(value)
        a, b, c, d = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise DataError(
            f"expected a box of four numbers, found {value!r}", path=row.path, line=row.line, column="box"
        ) from None
    with located(row, "box"):
        not_shares((a, b, c, d))
    return [a, b, a + c, b + d] if box_format == "xywh" else [a, b, c, d]


def _locate(media: Path, name: str, modality: str) -> str:
    """Return the path of a medium; a name without ending is completed where exactly one file fits."""
    path = media / name
    if not path.suffix and not path.exists():
        for ending in ENDINGS[modality]:
            if path.with_name(path.name + ending).exists():
                return str(path.with_name(path.name + ending))
    return str(path)
