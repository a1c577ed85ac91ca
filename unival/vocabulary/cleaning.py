"""Clean-up of captions, questions and answers (reference behaviour; lengths are in words)."""

from __future__ import annotations

import re
import string

SEPARATOR = "&&"
_LEADING = ",.!?*#:;~"
_BLANKS = re.compile(r"\s{2,}")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def first_words(text: str, max_words: int | None) -> str:
    """Keep at most ``max_words`` blank-separated words; None keeps all."""
    words = text.split(" ")
    return text if max_words is None or len(words) <= max_words else " ".join(words[:max_words])


def clean_question(text: str, max_words: int | None = None) -> str:
    """Lower-case, drop leading punctuation, turn ``-`` and ``/`` into blanks, collapse white space, cut."""
    text = text.lower().lstrip(_LEADING).replace("-", " ").replace("/", " ")
    return first_words(_BLANKS.sub(" ", text).rstrip("\n").strip(" "), max_words)


def clean_caption(text: str, max_words: int | None = None) -> str:
    """As ``clean_question``; ``<person>``, which some web captions contain, becomes ``person``."""
    text = text.lower().lstrip(_LEADING).replace("-", " ").replace("/", " ").replace("<person>", "person")
    return first_words(_BLANKS.sub(" ", text).rstrip("\n").strip(" "), max_words)


def delete_punctuation(text: str) -> str:
    """Delete ASCII punctuation (``dog's`` becomes ``dogs``); blanks stay."""
    return text.translate(_NO_PUNCTUATION)


def strip_punctuation(text: str, max_words: int | None = None) -> str:
    """Remove ASCII punctuation, keep the case, single blanks, cut. Captioning learns such captions."""
    words = delete_punctuation(text).split()
    return " ".join(words[:max_words])


def with_question_mark(question: str) -> str:
    """End a question in ``?`` unless it does; finetuning on questions does this, pretraining does not."""
    return question if question.endswith("?") else question + "?"


def split_joined(text: str) -> list[str]:
    """Split a field at ``&&`` (several captions, answers or objects), dropping blank parts."""
    return [part.strip() for part in text.split(SEPARATOR) if part.strip()]


def parse_answers(text: str) -> dict[str, float]:
    """Read ``0.6|!+hot dog&&1.0|!+red``; an answer without a confidence counts as 1.

    Returns answer -> confidence in order. Raises ValueError for a confidence outside (0, 1].
    """
    answers: dict[str, float] = {}
    for part in split_joined(text):
        head, mark, tail = part.partition("|!+")
        answer = (tail if mark else head).strip()
        confidence = float(head) if mark else 1.0
        if not 0 < confidence <= 1:
            raise ValueError(f"confidence {head} is outside (0, 1]")
        if answer:
            answers[answer] = max(confidence, answers.get(answer, 0.0))
    return answers
