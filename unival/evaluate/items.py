"""What an evaluation predicts and scores: rows of a table, or groups of rows about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unival.specs import SpecOptions, TaskSpec
from unival.specs.answers import human_answers
from unival.specs.subjects import Subjects
from unival.tables import Table


@dataclass(frozen=True)
class Item:
    """One thing to predict: its first row, all its rows, and what the prediction is compared with.

    ``raw_answers``: the human answers as the row holds them, when that is a list.
    """

    id: str
    row: int
    rows: tuple[int, ...]
    reference: Any = None
    raw_answers: list[Any] | None = None


def gather(
    spec: TaskSpec, table: Table, options: SpecOptions, limit: int | None = None, targets: bool = True
) -> list[Item]:
    """Return the first ``limit`` items of a table, in the order of their first rows.

    Where a task joins ids, rows with one id are one item with all their references; otherwise each row is
    one. Every target is read, so that a bad one shows before anything is predicted; without ``targets`` none
    is. Raises DataError, also for rows of one id that are about different media.
    """
    groups: dict[Any, list[int]] = {}
    references: dict[Any, Any] = {}
    seen: dict[Any, set[str]] = {}  # a picture may have twenty thousand captions
    raw: dict[Any, Any] = {}
    names: dict[Any, str] = {}
    subjects = Subjects(spec)
    for number, row in enumerate(table):
        subjects.check(row)
        name = spec.item_id(row)
        key = name if spec.joins_ids else number
        if limit is not None and key not in groups and len(groups) == limit:
            if not spec.joins_ids:
                break
            continue  # later rows may still belong to the first items
        reference = spec.reference(row, options) if targets else None
        if key in groups and reference is not None:
            references[key] = references[key] or []
            references[key] += [text for text in reference if text not in seen[key]]
            seen[key].update(reference)
        elif key not in groups:
            names[key] = name
            references[key] = reference
            if spec.joins_ids:
                references[key], seen[key] = reference and list(reference), set(reference or ())
            raw[key] = human_answers(row)
        groups.setdefault(key, []).append(number)
    return [Item(names[key], rows[0], tuple(rows), references[key], raw[key]) for key, rows in groups.items()]


def shown(spec: TaskSpec, table: Table, item: Item, record: dict[str, Any]) -> dict[str, Any]:
    """Return an item as the picture page reads it: media, question, prediction, references, boxes."""
    row = table[item.row]
    entry: dict[str, Any] = {
        "id": item.id,
        "media": row.get(spec.modality, None),
        "prediction": record["prediction"],
        "score": record["score"],
        "references": item.reference,
    }
    asked = next((f.name for f in spec.asked if f.words and row.get(f.name, None)), None)
    if asked is not None:
        entry["question"] = str(row[asked])
    if isinstance(record["prediction"], list) or (spec.answer is not None and spec.answer.name == "box"):
        entry["box"], entry["true_box"] = record["prediction"], item.reference
    if isinstance(drawn := record["prediction"], dict):  # a picture: shown where it was kept
        entry |= {"media": drawn.get("file"), "references": None}
        entry["prediction"] = None if drawn["similarity"] is None else f"similarity {drawn['similarity']:.3f}"
    return entry
