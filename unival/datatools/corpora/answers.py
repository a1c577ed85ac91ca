"""Answers of questions: confidences from human answers, and the closed list of frequent ones."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterable, Sequence

from unival.datatools.corpora.records import AnswerList, Option
from unival.metrics.vqa import accuracy_of, normalise_answer

WEIGHTS = Option(
    "answer-weights",
    "official",
    "confidence of an answer: its official VQA accuracy (official; of ten people 0.3, 0.6, 0.9 or 1 for one, two, "
    "three, or four and more), or the same for all distinct answers, one decimal (equal)",
    ("official", "equal"),
)
ROWS = Option(
    "rows-per",
    "answer",
    "training rows: one for each answer of the closed list (answer, as published), or one for a question with all "
    "its answers, of which the surest is learnt (question)",
    ("answer", "question"),
)


def confidences(humans: Iterable[str], weights: str = "official") -> dict[str, float]:
    """Return normalised answer -> confidence in (0, 1], the most frequent answer first.

    "official": the VQA accuracy of the answer among these people; a single person's answer has 1. "equal": 1/k for
    k distinct answers, rounded to one decimal (trap T35).
    """
    given = list(humans)
    counts = Counter(text for human in given if (text := normalise_answer(human)))
    ranked = sorted(counts, key=lambda text: -counts[text])
    if weights == "equal":
        return {text: max(round(1 / len(ranked), 1), 0.1) for text in ranked}
    if len(given) == 1:
        return dict.fromkeys(ranked, 1.0)
    return {text: value for text in ranked if (value := accuracy_of(counts[text], len(given))) > 0}


def scored_answers(humans: Sequence[str]) -> dict[str, float]:
    """Return answer -> official accuracy as an evaluation table lists them: an exact match scores as the VQA tool.

    The tool normalises only where people differ; where all said the same, their very words count.
    """
    words = {human.replace("\n", " ").replace("\t", " ").strip() for human in humans}
    if len(words) > 1:
        return confidences(humans)
    return dict.fromkeys(words, accuracy_of(len(humans), len(humans)) if len(humans) > 1 else 1.0)


def closed_list(counts: Counter[str], rule: AnswerList) -> tuple[str, ...]:
    """Return the frequent answers, the most frequent first; equals in alphabetical order."""
    kept = [text for text, count in counts.items() if count >= rule.min_count]
    kept.sort(key=lambda text: (-counts[text], text))
    return tuple(kept[: rule.max_answers] if rule.max_answers else kept)


def list_files(answers: Sequence[str]) -> tuple[str, bytes]:
    """Return the list as JSON and as the pickle of a plain dictionary, the form of the released files."""
    numbers = {answer: number for number, answer in enumerate(answers)}
    return json.dumps(numbers, ensure_ascii=False, indent=0) + "\n", pickle.dumps(numbers, protocol=4)
