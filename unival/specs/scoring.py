"""Glue between decoded predictions and ``unival.metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unival.errors import DataError


def need_references(references: Sequence[Any], ids: Sequence[str] | None = None) -> None:
    """Raise DataError naming the first row that carries nothing to compare with."""
    for index, reference in enumerate(references):
        if reference is None:
            name = ids[index] if ids is not None else index
            raise DataError(f"row {name} carries no target: it can be predicted but not scored")


def caption_score(
    predictions: Sequence[str], references: Sequence[list[str]], ids: Sequence[str] | None = None
) -> dict[str, float]:
    """Score captions; rows with the same id are one item with all their references (first prediction).

    Keys: cider (0 to 10), bleu1..4, rougel.
    """
    from unival.metrics import caption_scores

    need_references(references, ids)
    keys = [str(key) for key in (ids if ids is not None else range(len(predictions)))]
    candidates: dict[str, str] = {}
    truth: dict[str, list[str]] = {}
    for key, prediction, reference in zip(keys, predictions, references, strict=True):
        candidates.setdefault(key, prediction)
        known = truth.setdefault(key, [])
        known.extend(r for r in reference if r not in known)
    corpus = caption_scores(candidates, truth).corpus
    return {name.lower().replace("_", ""): float(value) for name, value in corpus.items()}


def label_score(name: str, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {name: share of predictions equal to their label}."""
    from unival.metrics import accuracy

    need_references(references)
    return {name: float(accuracy(list(predictions), list(references)))}
