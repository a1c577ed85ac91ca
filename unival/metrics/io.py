"""Files of predictions and references: our JSON lines, COCO and VQA formats, EvalAI result files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from unival.core.files import write_text
from unival.errors import ConfigError, DataError
from unival.metrics import cells

_ID_NAMES = ("id", "image_id", "question_id", "uniq_id", "video_id", "audio_id", "image")  # the last: VizWiz


@dataclass(frozen=True)
class Format:
    """One kind of official files, by the names of its keys.

    id, value: of a result file. predictions, references: where either is looked for, best first.
    """

    id: str
    value: str
    predictions: tuple[str, ...]
    references: tuple[str, ...]


# A kind is one of files, not of tasks: which one a task's files are, the task says (TaskSpec.official).
FORMATS = {
    "caption": Format(
        "image_id", "caption", ("caption", "prediction"), ("references", "captions", "caption")
    ),
    "vqa": Format("question_id", "answer", ("answer", "prediction"), ("answers", "answer")),
    "grounding": Format("uniq_id", "box", ("box", "prediction"), ("box", "bbox", "region_coord")),
    "entailment": Format("uniq_id", "answer", ("label", "answer", "prediction"), ("label", "answer")),
}


@dataclass
class References:
    """Reference values by id, and for VQA the group names (kind -> id -> name)."""

    values: dict[Any, Any] = field(default_factory=dict)
    groups: dict[str, dict[Any, str]] = field(default_factory=dict)


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        raise ConfigError(f"unknown kind of files {kind!r}: choose from {', '.join(FORMATS)}")
    return FORMATS[kind]


def _rows(path: str | Path) -> Iterator[tuple[int | None, Any]]:
    """(line or None, record) of a JSON document, JSON lines or a table with a header."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text (byte {error.start})", path=str(path)) from error
    if not text.strip():
        raise DataError("is empty", path=str(path))
    if path.suffix.lower() in (".tsv", ".csv"):
        yield from cells.rows(path, text)
        return
    try:
        yield None, json.loads(text, object_pairs_hook=partial(_object, path))
        return
    except json.JSONDecodeError as error:
        whole = error
    except (RecursionError, ValueError) as error:  # too deep; a number of thousands of digits
        raise DataError(f"not usable JSON: {error}", path=str(path)) from None
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) < 2:
        raise DataError(f"is not JSON: {whole.msg}", path=str(path), line=whole.lineno)
    for n, line in lines:
        try:
            yield n, json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"is not JSON: {error.msg}", path=str(path), line=n) from error
        except (RecursionError, ValueError) as error:
            raise DataError(f"not usable JSON: {error}", path=str(path), line=n) from None


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one of predictions by id that has an id twice would keep the last one alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the key '{twice}' stands twice in one object", path=str(path))
    return found


def _records(path: str | Path) -> tuple[dict[str, Any] | None, list[tuple[int | None, Mapping[str, Any]]]]:
    """(top-level dict of an official annotation file or None, records)."""
    rows = list(_rows(path))
    document: dict[str, Any] | None = None
    if len(rows) == 1 and rows[0][0] is None:
        whole = rows[0][1]
        if isinstance(whole, dict) and isinstance(whole.get("annotations"), list):
            document, whole = whole, whole["annotations"]
        elif isinstance(whole, dict):
            whole = [whole] if any(name in whole for name in _ID_NAMES) else _as_list(whole)
        if not isinstance(whole, list):
            raise DataError("holds neither a list nor annotations", path=str(path))
        rows = [(None, record) for record in whole]
    for line, record in rows:
        if not isinstance(record, Mapping):
            raise DataError(f"no object with an id but {str(record)[:60]!r}", path=str(path), line=line)
    return document, rows


def _as_list(mapping: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"id": key, "prediction": value, "references": value} for key, value in mapping.items()]


def _get(
    record: Mapping[str, Any], names: tuple[str, ...], path: str | Path, line: int | None, what: str
) -> Any:
    for name in names:
        if name in record:
            return record[name]
    raise DataError(
        f"no {what} ({' or '.join(names)}); the record has {', '.join(map(str, record))}",
        path=str(path),
        line=line,
    )


def _identity(record: Mapping[str, Any], layout: Format, path: str | Path, line: int | None, ids: str) -> Any:
    names = (layout.id, *(name for name in _ID_NAMES if name != layout.id))
    key = _get(record, names, path, line, "id")
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise DataError(f"the id {key!r} is neither a number nor a string", path=str(path), line=line)
    return convert_id(key, ids)


def convert_id(key: Any, ids: str) -> Any:
    """``ids`` "as-is" keeps the type; "str" and "int" convert, "int" only whole numbers."""
    if ids == "as-is":
        return key
    if ids == "str":
        return str(key)
    if ids == "int":
        text = str(key)
        return int(text) if text.removeprefix("-").isdecimal() else key
    raise ConfigError(f"ids={ids!r}: choose as-is, str or int")


def _box(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            return value
    return value


def read_predictions(path: str | Path, kind: str, ids: str = "as-is") -> dict[Any, Any]:
    """Predictions by id: JSON lines ({"id", "prediction"} or the kind's field), or a COCO/VQA result list.

    A table with a header works too. Raises DataError naming file and line for anything else, and for ids that
    occur twice.
    """
    layout = _format(kind)
    result: dict[Any, Any] = {}
    twice = []
    for line, record in _records(path)[1]:
        key = _identity(record, layout, path, line, ids)
        if key in result:
            twice.append(key)
        value = _get(record, layout.predictions, path, line, "prediction")
        result[key] = _box(value) if kind == "grounding" else _text(value, key, "prediction", path, line)
    if twice:
        raise DataError(f"{len(twice)} ids are predicted twice: {twice[:5]}", path=str(path))
    return result


def read_references(path: str | Path, kind: str, ids: str = "as-is") -> References:
    """References by id: COCO caption annotations, VQA annotations, JSON lines or a table with a header.

    Several caption records of one image are collected in file order. VQA answers are lists of strings,
    official dicts, or a mapping answer -> confidence (also as the reference's ``score|!+answer&&...``
    string).
    """
    layout = _format(kind)
    document, rows = _records(path)
    result = References()
    for line, record in rows:
        key = _identity(record, layout, path, line, ids)
        value = _get(record, (*layout.references, "references", "reference"), path, line, "reference")
        if kind == "caption":
            texts = [value] if isinstance(value, str) else value
            if not isinstance(texts, list):
                raise DataError(f"id {key!r}: captions are {value!r}, not text", path=str(path), line=line)
            checked = [_text(text, key, "caption", path, line) for text in texts]
            result.values.setdefault(key, []).extend(checked)
            continue
        if key in result.values:
            raise DataError(f"id {key!r} occurs twice among the references", path=str(path), line=line)
        if kind == "grounding":
            value = _box(value)
        elif kind == "vqa":
            value = _answers(value, path, line)
            for kind in ("answer_type", "question_type"):
                if kind in record:
                    result.groups.setdefault(kind, {})[key] = str(record[kind])
        result.values[key] = value
    if kind == "caption" and document is not None:
        images = document.get("images", [])
        if not isinstance(images, list):
            raise DataError(f"'images' is {str(images)[:60]!r}, expected a list", path=str(path))
        for image in images:
            key = convert_id(image.get("id") if isinstance(image, Mapping) else image, ids)
            if not isinstance(key, (int, str)):
                raise DataError(
                    f"an image has the id {str(key)[:60]!r}, which is no text or number", path=str(path)
                )
            if key not in result.values:
                raise DataError(f"image {key!r} has no caption", path=str(path))
    return result


def _text(value: Any, key: Any, what: str, path: str | Path, line: int | None) -> Any:
    """A text, or a number that stands for one; DataError for null, NaN, true, lists and objects."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number and not isinstance(value, str):
        raise DataError(
            f"the {what} of id {key!r} is {str(value)[:60]!r} ({type(value).__name__}), not text",
            path=str(path),
            line=line,
        )
    return value


def _answers(value: Any, path: str | Path, line: int | None) -> Any:
    if isinstance(value, list | Mapping):
        return value
    if not isinstance(value, str):
        return [str(_text(value, "of the row", "answer", path, line))]
    if "|!+" not in value:
        return [value]
    table = {}
    for part in value.split("&&"):
        score, _, answer = part.partition("|!+")
        try:
            table[answer] = float(score)
        except ValueError:
            raise DataError(f"{part!r} is not score|!+answer", path=str(path), line=line) from None
    return table


def write_results(path: str | Path, predictions: Mapping[Any, Any], kind: str) -> None:
    """Write a result file as EvalAI and the COCO tools read it: a JSON list, sorted by id, atomically.

    Ids that are whole numbers become numbers (the official tools compare them with numbers). Answers whose ids are
    names of pictures are VizWiz's, where the key is ``image``.
    """
    layout = _format(kind)
    rows: list[dict[str, Any]] = []
    pictures = bool(predictions) and all(
        str(key).lower().endswith((".jpg", ".jpeg", ".png")) for key in predictions
    )
    name = "image" if kind == "vqa" and pictures else layout.id
    for key, value in predictions.items():
        rows.append({name: convert_id(key, "int"), layout.value: value})
    rows.sort(key=lambda row: (isinstance(row[name], str), row[name]))
    write_text(path, json.dumps(rows, ensure_ascii=False))
