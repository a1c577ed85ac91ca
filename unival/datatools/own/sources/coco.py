"""COCO's JSON files (captions, boxes with categories) and the official VQA pair of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unival.errors import ConfigError, DataError
from unival.specs import TaskSpec


def read_coco(path: Path, spec: TaskSpec, media: Path, annotations: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the records of a COCO file (``images`` and ``annotations``) or of VQA ``questions``.

    Boxes come as x, y, width, height and leave as corners; their text is ``caption``, else the category's
    name. VQA needs the second file for answers; without it the records have none.

    Raises:
        DataError: not such a file. ConfigError: a task the file cannot serve.
    """
    content = _read(path)
    if "questions" in content:
        return _questions(content, path, spec, media, annotations)
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise DataError(
                f"expected COCO's lists 'images' and 'annotations', '{key}' is missing", path=str(path)
            )
    if spec.name not in ("caption", "grounding"):
        raise ConfigError(f"{path}: a COCO file serves the tasks caption and grounding, not '{spec.name}'")
    return _annotations(content, path, spec, media)


def _annotations(
    content: dict[str, Any], path: Path, spec: TaskSpec, media: Path
) -> Iterator[dict[str, Any]]:
    files = {image["id"]: image["file_name"] for image in content["images"]}
    categories = {c["id"]: c["name"] for c in content.get("categories", [])}
    for number, item in enumerate(content["annotations"], 1):
        try:
            record: dict[str, Any] = {
                "id": str(item.get("id", number)),
                "image": str(media / files[item["image_id"]]),
            }
            if spec.name == "caption":
                # captions of one image join by its path, not by the annotation's id
                yield {"image": record["image"], "caption": item["caption"]}
                continue
            x, y, w, h = item["bbox"]
            text = item.get("caption") or categories[item["category_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"annotation {number}: {type(error).__name__} {error}", path=str(path)) from None
        yield {**record, "text": text, "box": [x, y, x + w, y + h]}


def _questions(
    content: dict[str, Any], path: Path, spec: TaskSpec, media: Path, annotations: Path | None
) -> Iterator[dict[str, Any]]:
    if spec.name != "vqa":
        raise ConfigError(f"{path}: a file of questions serves the task vqa, not '{spec.name}'")
    answers: dict[Any, list[str]] = {}
    if annotations is not None:
        for item in _read(annotations).get("annotations", []):
            answers[item["question_id"]] = [a["answer"] for a in item["answers"]]
    by_id = {i["id"]: i["file_name"] for i in content.get("images", [])}
    for number, item in enumerate(content["questions"], 1):
        try:
            file = by_id.get(item["image_id"], str(item["image_id"]))
            record = {"id": str(item["question_id"]), "question": item["question"]}
        except (KeyError, TypeError) as error:
            raise DataError(f"question {number}: {type(error).__name__} {error}", path=str(path)) from None
        if "." not in file:
            file = _image_file(media, file)
        record["image"] = str(media / file)
        if item["question_id"] in answers:
            yield {**record, "answer": answers[item["question_id"]]}
        else:
            yield record


def _image_file(media: Path, number: str) -> str:
    """COCO's files carry the image number, padded to twelve digits, at their end."""
    if number.isdigit():
        found = sorted(media.glob(f"*{int(number):012d}.jpg"))
        if found:
            return found[0].name
    return f"{number}.jpg"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"expected a JSON file ({error})", path=str(path)) from None
    if not isinstance(content, dict):
        raise DataError("expected a JSON object with 'images' or 'questions'", path=str(path))
    return content
