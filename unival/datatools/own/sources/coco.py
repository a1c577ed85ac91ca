"""COCO's JSON files (captions, boxes with categories) and the official VQA pair of files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unival.datatools.own.report import UNUSABLE, Report
from unival.errors import ConfigError, DataError, RowNumber, said
from unival.specs import TaskSpec
from unival.tables import Row

_NUMBER = re.compile(r"(\d{12})\.jpg$", re.IGNORECASE)  # COCO's files end in the padded number of the image


def read_coco(
    path: Path, spec: TaskSpec, media: Path, annotations: Path | None, report: Report
) -> Iterator[Row]:
    """Yield the rows of a COCO file (``images`` and ``annotations``) or of VQA ``questions``.

    Boxes come as x, y, width, height and leave as corners; their text is ``caption``, else the category's
    name. VQA needs the second file for answers; without it the rows have none. Entries that refer to nothing or
    lack what the task needs are counted in ``report``.

    Raises:
        DataError: not such a file. ConfigError: a task the file cannot serve.
    """
    content = _read(path)
    if "questions" in content:
        return _questions(content, path, spec, media, annotations, report)
    if spec.name not in ("caption", "grounding"):
        raise ConfigError(f"{path}: a COCO file serves the tasks caption and grounding, not '{spec.name}'")
    return _annotations(content, path, spec, media, report)


def _annotations(
    content: dict[str, Any], path: Path, spec: TaskSpec, media: Path, report: Report
) -> Iterator[Row]:
    files = _named(content, "images", "file_name", path)
    categories = _named(content, "categories", "name", path) if content.get("categories") else {}
    for number, item in enumerate(_list(content, "annotations", path), 1):
        place = f"{path}, annotation {number}"
        try:
            file = _looked_up(item, "image_id", files, "images")
            values: dict[str, Any] = {"image": str(media / file)}
            if spec.name == "caption":
                # captions of one image join by its path, not by the annotation's id
                values["caption"] = item.get("caption")
            else:
                values |= {"id": str(item.get("id", number)), "box": _corners(item.get("bbox"))}
                values["text"] = item.get("caption") or _looked_up(
                    item, "category_id", categories, "categories"
                )
        except DataError as error:
            report.add(UNUSABLE, f"{place}: {error}")
            continue
        yield Row(values, f"{path}, annotations", RowNumber(number))


def _questions(
    content: dict[str, Any], path: Path, spec: TaskSpec, media: Path, annotations: Path | None, report: Report
) -> Iterator[Row]:
    if spec.name != "vqa":
        raise ConfigError(f"{path}: a file of questions serves the task vqa, not '{spec.name}'")
    answers: dict[str, Any] = {}
    if annotations is not None:
        for number, item in enumerate(_list(_read(annotations), "annotations", annotations), 1):
            if "question_id" not in item or "answers" not in item:
                raise DataError(
                    f"annotation {number}: expected 'question_id' and 'answers'", path=str(annotations)
                )
            answers[str(item["question_id"])] = item["answers"]
    by_id = _named(content, "images", "file_name", path) if content.get("images") else {}
    files = _Pictures(media)
    for number, item in enumerate(_list(content, "questions", path), 1):
        lacking = [name for name in ("question_id", "image_id", "question") if item.get(name) is None]
        if lacking:
            report.add(UNUSABLE, f"{path}, question {number}: there is no '{lacking[0]}'")
            continue
        file = by_id.get(str(item["image_id"]), str(item["image_id"]))
        values = {
            "id": str(item["question_id"]),
            "question": item["question"],
            "image": str(media / (file if "." in file else files.name(file))),
        }
        if values["id"] in answers:
            values["answer"] = answers[values["id"]]
        yield Row(values, f"{path}, questions", RowNumber(number))


class _Pictures:
    """Files of a folder by COCO's image numbers; the folder is read once."""

    def __init__(self, folder: Path) -> None:
        self._names: dict[int, str] = {}
        if folder.is_dir():
            for name in sorted(os.listdir(folder), reverse=True):
                if match := _NUMBER.search(name):
                    self._names[int(match[1])] = name

    def name(self, number: str) -> str:
        """Return the file of an image number, else the number as the name of a JPEG."""
        return self._names.get(int(number), f"{number}.jpg") if number.isdigit() else f"{number}.jpg"


def _named(content: Mapping[str, Any], key: str, value: str, path: Path) -> dict[str, str]:
    """Return id -> name of a list of objects; ids are compared as text, since tools write both kinds."""
    found: dict[str, str] = {}
    without = None
    for number, item in enumerate(_list(content, key, path), 1):
        if item.get("id") is None or not isinstance(item.get(value), str):
            without = (
                without
                or f"{key}, entry {number}: there is no '{value if item.get('id') is not None else 'id'}'"
            )
            continue
        found[str(item["id"])] = item[value]
    if without and not found:
        raise DataError(f"{without}; an entry is such as {{'id': 1, '{value}': '...'}}", path=str(path))
    return found


def _looked_up(item: Mapping[str, Any], key: str, names: Mapping[str, str], where: str) -> str:
    if item.get(key) is None:
        raise DataError(f"there is no '{key}'")
    if str(item[key]) not in names:
        raise DataError(f"its {key} {item[key]!r} is not among the {len(names):,} named '{where}'")
    return names[str(item[key])]


def _corners(box: Any) -> list[float]:
    try:
        x, y, w, h = (float(part) for part in box)
    except (TypeError, ValueError):
        raise DataError(f"expected 'bbox' as four numbers x, y, width, height, got {box!r}") from None
    return [x, y, x + w, y + h]


def _list(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list):
        raise DataError(
            f"expected COCO's lists 'images' and 'annotations', '{key}' is missing", path=str(path)
        )
    for number, item in enumerate(value, 1):
        if not isinstance(item, dict):
            raise DataError(
                f"{key}, entry {number}: expected an object, got {str(item)[:40]!r}", path=str(path)
            )
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"expected a JSON file ({said(error)})", path=str(path)) from None
    if not isinstance(content, dict):
        raise DataError("expected a JSON object with 'images' or 'questions'", path=str(path))
    return content
