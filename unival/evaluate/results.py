"""The file that EvalAI and the COCO tools read, of an evaluation with or without references."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from unival.core.files import check_file
from unival.errors import ConfigError, DataError
from unival.evaluate.run import Evaluation
from unival.metrics import io
from unival.metrics.result import listing
from unival.specs import SPECS


def check_results(evaluation: Evaluation, path: str | Path) -> None:
    """Raise ConfigError, DataError or OutputError for what cannot be written, before anything is predicted."""
    if evaluation.spec.official is None:
        known = ", ".join(name for name, spec in SPECS.items() if spec.official)
        raise ConfigError(
            f"--results: task '{evaluation.spec.name}' has no such file; tasks with one: {known}"
        )
    unnamed = [item for item in evaluation.items if evaluation.table[item.row].get("id") in (None, "")]
    if unnamed and not (evaluation.spec.joins_ids and len(unnamed) == len(evaluation.items)):
        raise DataError(
            f"--results needs ids, and {len(unnamed)} of {len(evaluation.items)} rows have none: give the table a "
            "column 'id' with the ids of the official file",
            path=evaluation.table.path,
        )
    twice = [name for name, count in Counter(item.id for item in evaluation.items).items() if count > 1]
    if twice:
        raise DataError(
            f"--results: ids that stand twice in the table: {listing(twice)}", path=evaluation.table.path
        )
    check_file(path)


def save_results(evaluation: Evaluation, path: str | Path) -> int:
    """Write the file; returns how many predictions it holds."""
    found = evaluation.parts.read()
    predictions = {
        item.id: found[item.row]["prediction"]
        for item in evaluation.items
        if "prediction" in found.get(item.row, {})
    }
    io.write_results(path, predictions, evaluation.spec.official or evaluation.spec.name)
    return len(predictions)
