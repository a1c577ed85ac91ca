"""Glue between decoded predictions and ``unival.metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unival.errors import DataError
from unival.text import strip_punctuation


def need_references(references: Sequence[Any], ids: Sequence[str] | None = None) -> None:
    """Raise DataError naming the first row that carries nothing to compare with."""
    for index, reference in enumerate(references):
        if reference is None:
            name = ids[index] if ids is not None else index
            raise DataError(f"row {name} carries no target: it can be predicted but not scored")


def caption_score(
    predictions: Sequence[str], references: Sequence[list[str]], ids: Sequence[str] | None = None
) -> dict[str, float]:
    """Score captions, joined by id. Keys: cider (0 to 10), bleu1..4, rougel, and exact, the share of captions
    that equal a reference but for case and punctuation (what counts where captions are labels)."""
    from unival.metrics import caption_scores

    candidates, truth = join_captions(predictions, references, ids)
    corpus = caption_scores(candidates, truth).corpus
    scores = {caption_name(name): float(value) for name, value in corpus.items()}
    plain = {key: {_plain(text) for text in texts} for key, texts in truth.items()}
    scores["exact"] = sum(_plain(text) in plain[key] for key, text in candidates.items()) / len(candidates)
    return scores


def _plain(text: str) -> str:
    return " ".join(strip_punctuation(text).lower().split())


def caption_name(name: str) -> str:
    """Return the short name of a caption metric: ``Bleu_4`` is ``bleu4``."""
    return name.lower().replace("_", "")


def join_captions(
    predictions: Sequence[str], references: Sequence[list[str]], ids: Sequence[str] | None = None
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return id -> caption and id -> references; rows with one id are one item: first prediction, all references."""
    need_references(references, ids)
    keys = [str(key) for key in (ids if ids is not None else range(len(predictions)))]
    candidates: dict[str, str] = {}
    truth: dict[str, list[str]] = {}
    for key, prediction, reference in zip(keys, predictions, references, strict=True):
        candidates.setdefault(key, prediction)
        known = truth.setdefault(key, [])
        known.extend(r for r in reference if r not in known)
    return candidates, truth


def label_score(name: str, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {name: share of predictions equal to their label}."""
    from unival.metrics import accuracy

    need_references(references)
    return {name: float(accuracy(list(predictions), list(references)))}
