"""What a vocabulary of one's own learns from: the task prompts and the texts of table cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from unival.vocabulary.prompts import PROMPTS


def prompt_texts() -> Iterator[str]:
    """Yield the task prompts with nothing filled in."""
    for template in PROMPTS.values():
        yield template.format_map(defaultdict(str))


def texts_of(value: str) -> Iterator[str]:
    """Yield the texts of one cell as tasks encode them: with the blank that belongs to the first piece."""
    for text in value.split("&&"):
        yield f" {text.rpartition('|!+')[2].strip()}"
