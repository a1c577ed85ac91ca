"""Reads the reference cases of the evaluation metrics (see data/: numbers of the official programs)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "metrics/data"


def case(name: str) -> dict[str, Any]:
    path = DATA / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))


def captions(name: str) -> tuple[dict[str, Any], dict[int, str], dict[int, list[str]]]:
    """The case, candidates by id and references by id in file order."""
    data = case(name)
    references: dict[int, list[str]] = {}
    for row in data["annotations"]:
        references.setdefault(row["image_id"], []).append(row["caption"])
    return data, {row["image_id"]: row["caption"] for row in data["results"]}, references
