"""Glue between decoded predictions and ``unival.metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unival.errors import DataError
from unival.vocabulary.cleaning import strip_punctuation

if TYPE_CHECKING:
    from unival.metrics import Scores


def need_references(references: Sequence[Any], ids: Sequence[str] | None = None) -> None:
    """Raise DataError naming the first row that carries nothing to compare with."""
    for index, reference in enumerate(references):
        if reference is None:
            name = ids[index] if ids is not None else index
            raise DataError(f"row {name} carries no target: it can be predicted but not scored")


def caption_score(
    predictions: Sequence[str], references: Sequence[list[str]], ids: Sequence[str] | None = None
) -> dict[str, float]:
    """Score captions with the usual metrics: the corpus values of :func:`score_captions`."""
    return score_captions(*join_captions(predictions, references, ids)).corpus


def score_captions(candidates: dict[str, str], truth: dict[str, list[str]], **settings: Any) -> Scores:
    """Score captions by id; ``settings`` are those of ``unival.metrics.caption_scores``.

    Keys: cider (0 to 10), bleu1..4, rougel, and exact, the share of captions that equal a reference but for
    case and punctuation (what counts where captions are labels).
    """
    from unival.metrics import Scores, caption_scores

    scores = caption_scores(candidates, truth, **settings)
    per_item = {
        key: {_short(n): float(v) for n, v in values.items()} for key, values in scores.per_item.items()
    }
    for key, text in candidates.items():
        per_item[key]["exact"] = float(_plain(text) in {_plain(reference) for reference in truth[key]})
    corpus = {_short(name): float(value) for name, value in scores.corpus.items()}
    corpus["exact"] = sum(values["exact"] for values in per_item.values()) / len(per_item)
    return Scores(corpus, per_item, scores.info)


def best_references(references: Sequence[list[str]]) -> list[str]:
    """Return of each item's references the one with the highest CIDEr against all of them."""
    truth = {str(key): texts for key, texts in enumerate(references)}
    best: dict[str, tuple[float, str]] = {}
    for place in range(max(map(len, references), default=0)):
        said = {key: texts[min(place, len(texts) - 1)] for key, texts in truth.items()}
        scores = score_captions(said, truth, metrics=("cider",)).per_item
        for key, text in said.items():
            if key not in best or scores[key]["cider"] > best[key][0]:
                best[key] = scores[key]["cider"], text
    return [best[key][1] for key in truth]


def _short(name: str) -> str:
    return name.lower().replace("_", "")  # Bleu_4 is bleu4


def _plain(text: str) -> str:
    return " ".join(strip_punctuation(text).lower().split())


def join_captions(
    predictions: Sequence[str], references: Sequence[list[str]], ids: Sequence[str] | None = None
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return id -> caption and id -> references; rows with one id are one item, predicted once."""
    need_references(references, ids)
    keys = [str(key) for key in (ids if ids is not None else range(len(predictions)))]
    candidates: dict[str, str] = {}
    truth: dict[str, dict[str, None]] = {}  # ordered sets
    for key, prediction, reference in zip(keys, predictions, references, strict=True):
        candidates.setdefault(key, prediction)
        truth.setdefault(key, {}).update(dict.fromkeys(reference))
    return candidates, {key: list(texts) for key, texts in truth.items()}


def label_score(name: str, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {name: share of predictions equal to their label}."""
    from unival.metrics import accuracy

    need_references(references)
    return {name: float(accuracy(list(predictions), list(references)))}
