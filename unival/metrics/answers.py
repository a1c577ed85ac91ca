"""Answer accuracy as the reference computes it: exact strings, no normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unival.errors import DataError
from unival.metrics.result import Scores, pair, refuse_none


def soft_answer_accuracy(
    predictions: Mapping[Any, str] | Sequence[str],
    references: Mapping[Any, Mapping[str, float]] | Sequence[Mapping[str, float]],
    missing: str = "error",
) -> Scores:
    """Mean confidence of the predicted string in the row's reference answers, 0 where it is not among them.

    ``references`` maps answer -> confidence in 0..1 (the ``score|!+answer`` column of the reference's
    tables). Reference behaviour: exact string match without any normalisation. Corpus key ``accuracy``.
    """
    refuse_none(predictions, "answer")
    rows, info = pair(predictions, references, missing)
    values: dict[Any, dict[str, float]] = {}
    for key, answer, truth in rows:
        if answer is not None and not isinstance(answer, str):
            raise DataError(f"id {key!r}: the answer is {answer!r}, not a string")
        if not isinstance(truth, Mapping):
            raise DataError(f"id {key!r}: the reference is {truth!r}, not a mapping answer -> confidence")
        values[key] = {"accuracy": float(truth.get(answer, 0.0)) if answer is not None else 0.0}
    total = math.fsum(value["accuracy"] for value in values.values())
    return Scores({"accuracy": total / len(values)}, values, {"metric": "soft answer accuracy", **info})
