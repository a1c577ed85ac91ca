"""Plain accuracy: entailment labels, exact answers, binary decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unival.metrics.result import Scores, pair


def accuracy(
    predictions: Mapping[Any, Any] | Sequence[Any],
    references: Mapping[Any, Any] | Sequence[Any],
    missing: str = "error",
) -> Scores:
    """Share of predictions equal to their reference. Corpus key ``accuracy`` (0 to 1)."""
    rows, info = pair(predictions, references, missing)
    values = {key: {"accuracy": float(label is not None and label == truth)} for key, label, truth in rows}
    total = math.fsum(value["accuracy"] for value in values.values())
    return Scores({"accuracy": total / len(values)}, values, {"metric": "accuracy", **info})
