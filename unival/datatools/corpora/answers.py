"""Answers of questions: confidences from human answers, and the closed list of frequent ones."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterable, Sequence

from unival.datatools.corpora.records import AnswerList, Option
from unival.metrics.vqa import normalise_answer

WEIGHTS = Option(
    "answer-weights",
    "official",
    "confidence of an answer: min(1, n/3) of n people (official), or the same for all distinct answers, one "
    "decimal (equal, as the reference writes them)",
    ("official", "equal"),
)


def confidences(humans: Iterable[str], weights: str = "official") -> dict[str, float]:
    """Return answer -> confidence in (0, 1], the most frequent answer first.

    Answers are normalised as the official VQA evaluation does. "official": min(1, n/3) for an answer that n
    people gave. "equal": 1/k for k distinct answers, rounded to one decimal (reference behaviour, trap T35).
    """
    counts = Counter(text for human in humans if (text := normalise_answer(human)))
    ranked = sorted(counts, key=lambda text: -counts[text])
    if weights == "equal":
        return {text: max(round(1 / len(ranked), 1), 0.1) for text in ranked}
    return {text: round(min(1.0, counts[text] / 3), 4) for text in ranked}


def closed_list(counts: Counter[str], rule: AnswerList) -> tuple[str, ...]:
    """Return the frequent answers, the most frequent first; equals in alphabetical order."""
    kept = [text for text, count in counts.items() if count >= rule.min_count]
    kept.sort(key=lambda text: (-counts[text], text))
    return tuple(kept[: rule.max_answers] if rule.max_answers else kept)


def list_files(answers: Sequence[str]) -> tuple[str, bytes]:
    """Return the list as JSON and as the pickle of a plain dictionary, the form of the released files."""
    numbers = {answer: number for number, answer in enumerate(answers)}
    return json.dumps(numbers, ensure_ascii=False, indent=0) + "\n", pickle.dumps(numbers, protocol=4)
