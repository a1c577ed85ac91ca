"""Tokenisation of captions for the metrics."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w[\w.'/-]*\w|\w|[&$%#!?]+")


def ptb_tokenize(text: str) -> list[str]:
    """Lower-case tokens of a caption without punctuation."""
    return _WORD.findall(text.lower())
