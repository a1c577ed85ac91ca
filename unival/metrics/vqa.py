"""VQA accuracy as the official VQA evaluation computes it, with its quirks (GT-Vision-Lab/VQA, vqaEval)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from unival.errors import DataError
from unival.metrics.result import Scores, pair, refuse_none

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The official code passes a flag (re.UNICODE = 32) where the substitution count goes.
_PERIODS_REMOVED = 32
_ARTICLES = frozenset(("a", "an", "the"))
_NUMBER_WORDS = "none/zero one two three four five six seven eight nine ten"
_NUMBERS = {
    word: str(value)
    for value, words in enumerate(words.split("/") for words in _NUMBER_WORDS.split())
    for word in words
}

# Contractions whose plain form is the contraction without its apostrophes (can't -> cant). Each also stands
# for the spellings with one of two apostrophes missing (couldn'tve, couldnt've).
_REGULAR = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've
shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd
there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've
when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all
you'd you'll you're you've
"""
_DOUBLE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've
"""
_IRREGULAR = {
    "somebody'd": "somebodyd",  # sic: the official table has the pair the wrong way round
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _contractions() -> dict[str, str]:
    table = {word.replace("'", ""): word for word in _REGULAR.split()} | _IRREGULAR
    for word in _DOUBLE.split():
        stem, middle, end = word.split("'")
        table[f"{stem}{middle}'{end}"] = word
        table[f"{stem}'{middle}{end}"] = word
    return table


_CONTRACTIONS = _contractions()


def process_punctuation(text: str) -> str:
    """Delete or blank the official list of marks, then delete periods not followed by a digit (at most 32).

    A mark is deleted if it touches a space anywhere or if the text has digit-comma-digit; else it becomes a
    space.
    """
    result = text
    number = _DIGIT_COMMA.search(text) is not None
    for mark in _MARKS:
        if mark in text:
            delete = number or mark + " " in text or " " + mark in text
            result = result.replace(mark, "" if delete else " ")
    return _PERIOD.sub("", result, count=_PERIODS_REMOVED)


def process_digit_article(text: str) -> str:
    """Lower case; number words zero to ten to digits; articles dropped; contractions restored."""
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _strip(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)
def normalise_answer(text: str) -> str:
    """The official normalisation of an answer."""
    return process_digit_article(process_punctuation(_strip(text)))


def _humans(key: Any, answers: Any) -> list[str]:
    texts: list[Any] = [item.get("answer") if isinstance(item, Mapping) else item for item in answers]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"question {key!r}: the human answers {answers!r} are not a non-empty list of strings"
        )
    return texts


def _accuracy(answer: str, humans: list[str]) -> float:
    answer, humans = _strip(answer), [_strip(text) for text in humans]
    # Official quirk: unanimous humans are compared without any normalisation.
    if len(set(humans)) > 1:
        answer, humans = normalise_answer(answer), [normalise_answer(text) for text in humans]
    return accuracy_of(sum(text == answer for text in humans), len(humans))


def accuracy_of(matches: int, people: int) -> float:
    """Accuracy of an answer that ``matches`` of ``people`` gave: the mean, over the people, of min(1, n/3) for
    n others who gave it. Of ten people: 0, 0.3, 0.6, 0.9, then 1."""
    agreeing, others = min(1.0, (matches - 1) / 3), min(1.0, matches / 3)
    return (matches * agreeing + (people - matches) * others) / people


def vqa_accuracy(
    predictions: Mapping[Any, str] | Sequence[str],
    references: Mapping[Any, Sequence[Any]] | Sequence[Sequence[Any]],
    groups: Mapping[str, Mapping[Any, str]] | None = None,
    missing: str = "error",
) -> Scores:
    """Official VQA accuracy.

    ``references`` gives per question the human answers, as strings or as the official dicts with "answer"
    (ten in VQA v2). ``groups`` maps a group kind ("answer_type") to question id -> group name and adds one
    corpus entry per group (``answer_type/number``). Values are 0 to 1; corpus values are rounded to four
    decimals, as the official tool rounds percentages to two. Raises DataError as :func:`pair` does.
    """
    refuse_none(predictions, "answer")
    rows, info = pair(predictions, references, missing)
    per_item: dict[Any, dict[str, float]] = {}
    for key, answer, humans in rows:
        if answer is not None and not isinstance(answer, str):
            raise DataError(f"question {key!r}: the answer is {answer!r}, not a string")
        texts = _humans(key, humans)
        per_item[key] = {"accuracy": 0.0 if answer is None else _accuracy(answer, texts)}
    corpus = {"accuracy": _mean([item["accuracy"] for item in per_item.values()])}
    for kind, names in (groups or {}).items():
        members: dict[str, list[float]] = {}
        for key, item in per_item.items():
            members.setdefault(names.get(key, "unknown"), []).append(item["accuracy"])
        corpus |= {f"{kind}/{name}": _mean(members[name]) for name in sorted(members)}
    return Scores(corpus, per_item, {"metric": "VQA accuracy (official)", "protocol": "official", **info})


def _mean(values: list[float]) -> float:
    return round(100 * math.fsum(values) / len(values), 2) / 100
