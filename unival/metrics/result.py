"""What every metric returns, and the strict pairing of predictions with references."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unival.errors import ConfigError, DataError

P = TypeVar("P")
R = TypeVar("R")

MISSING = ("error", "zero", "ignore")
_LISTED = 5


@dataclass(frozen=True)
class Scores:
    """Scores of one evaluation.

    ``corpus`` maps metric name -> value (first entry is the main one), ``per_item`` maps id -> metric
    name -> value in sorted id order, ``info`` says how they were computed (protocol, tokeniser, counts).
    ``float(scores)`` is the main value.
    """

    corpus: dict[str, float]
    per_item: dict[Any, dict[str, float]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return float(next(iter(self.corpus.values())))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; per-item ids become strings."""
        return {
            "scores": dict(self.corpus),
            "info": dict(self.info),
            "per_item": {str(key): dict(value) for key, value in self.per_item.items()},
        }


class CaptionScores(Scores):
    """Scores of captions; ``per_image`` is another name of ``per_item``."""

    @property
    def per_image(self) -> dict[Any, dict[str, float]]:
        return self.per_item


def id_order(ids: Iterable[Any]) -> list[Any]:
    """Ids in the one order in which sums are taken: numbers by value, then strings."""
    return sorted(ids, key=lambda key: (isinstance(key, str), key))


def listing(ids: Iterable[Any]) -> str:
    """The first few ids and how many there are, for messages."""
    ids = list(ids)
    shown = ", ".join(repr(key) for key in ids[:_LISTED])
    return f"{shown}, ... ({len(ids)} in all)" if len(ids) > _LISTED else shown


def refuse_none(predictions: Mapping[Any, Any] | Sequence[Any], what: str) -> None:
    """Raise DataError if a prediction is there but is None (a missing id is another matter)."""
    items = predictions.items() if isinstance(predictions, Mapping) else enumerate(predictions)
    empty = [key for key, value in items if value is None]
    if empty:
        raise DataError(f"the {what} of id {listing(empty)} is None, not a string")


def pair(
    predictions: Mapping[Any, P] | Sequence[P],
    references: Mapping[Any, R] | Sequence[R],
    missing: str = "error",
    path: str | None = None,
) -> tuple[list[tuple[Any, P | None, R]], dict[str, Any]]:
    """Match predictions with references by id, in id order.

    Two mappings are matched by key, two sequences of one length by position. Unknown ids, ids of another
    type (str against int), an empty set and a difference in length raise DataError with the first few ids.
    A reference without a prediction is an error; ``missing="zero"`` keeps it with the prediction None,
    ``missing="ignore"`` leaves it out, both counted in the returned info (``items``, ``missing``).
    """
    if missing not in MISSING:
        raise ConfigError(f"missing={missing!r}: choose one of {', '.join(MISSING)}")
    if isinstance(predictions, Mapping) != isinstance(references, Mapping):
        raise DataError(
            "predictions and references must both be mappings id -> value or both be sequences", path=path
        )
    if not isinstance(predictions, Mapping):
        assert not isinstance(references, Mapping)
        if len(predictions) != len(references):
            raise DataError(
                f"{len(predictions)} predictions but {len(references)} references; "
                "give mappings id -> value so that they can be matched",
                path=path,
            )
        predictions = dict(enumerate(predictions))
        references = dict(enumerate(references))
    assert isinstance(references, Mapping)
    if not references:
        raise DataError("there are no references: an empty set has no score", path=path)
    unknown = [key for key in predictions if key not in references]
    absent = [key for key in references if key not in predictions]
    if unknown:
        raise DataError(
            f"{len(unknown)} predicted ids are not among the references: {listing(unknown)}"
            f"{_type_hint(unknown, references)}",
            path=path,
        )
    if absent and missing == "error":
        raise DataError(
            f"{len(absent)} of {len(references)} references have no prediction: {listing(id_order(absent))}; "
            "predict them, or ask for missing='zero' (they score 0) or missing='ignore' (they are left out)",
            path=path,
        )
    keys: Iterable[Hashable] = references if missing != "ignore" else predictions
    rows = [(key, predictions.get(key), references[key]) for key in id_order(keys)]
    if not rows:
        raise DataError("no reference has a prediction: nothing to score", path=path)
    return rows, {"items": len(rows), "missing": len(absent), "missing_policy": missing}


def _type_hint(unknown: Sequence[Any], references: Mapping[Any, Any]) -> str:
    def other(key: Any) -> Any:
        if isinstance(key, str):
            return int(key) if key.lstrip("-").isdigit() else None
        return str(key)

    if any(other(key) in references for key in unknown[:_LISTED]):
        kind = "strings" if isinstance(unknown[0], str) else "numbers"
        return f"; the predicted ids are {kind} and the reference ids are not: convert one side (--ids str)"
    return ""
