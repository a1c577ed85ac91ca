"""What the published tables did to texts before they were written."""

from __future__ import annotations

from collections.abc import Callable

from unival.datatools.corpora.records import Option

TEXT = Option(
    "text",
    "published",
    "texts as in the published tables (captions of COCO in lower case; captions of videos and sounds, and everything "
    "in pretraining rows, without what is no letter, digit or blank), or as the official files have them (original)",
    ("published", "original"),
)


def letters_and_digits(text: str) -> str:
    """Return ``text`` without what is neither letter, digit nor blank: "a man, surf-board." -> "a man surfboard"."""
    return " ".join("".join(c for c in text if c.isalnum() or c.isspace()).split())


RULES: dict[str, Callable[[str], str]] = {"": str, "lower": str.lower, "letters": letters_and_digits}
