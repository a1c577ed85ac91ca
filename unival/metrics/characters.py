"""Captions in scripts that put no blanks between words: how to see them, and how to score them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from unival.metrics.tokenizer import ptb_tokenize

# Ideographs, kana, Thai, Lao, Burmese and Khmer. Korean has blanks.
_UNBROKEN = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_CHARACTER = re.compile(f"[{_UNBROKEN}]")
_PIECES = re.compile(f"[{_UNBROKEN}]|[^{_UNBROKEN}]+")
_LONG = 4  # characters: words of these languages are shorter on average

WARNING = (
    "the captions seem to be in a script without blanks between words (Chinese, Japanese, Thai, ...), so that whole "
    "clauses are compared as one word: split them into words first, or score characters with --tokenizer characters"
)


def character_tokenize(text: str) -> list[str]:
    """Tokens of a caption in which every character of such a script is a word, with the marks that belong to it.

    Other text is split as the PTB tokeniser does; punctuation goes.
    """
    tokens: list[str] = []
    for piece in _PIECES.findall(text):
        if not _CHARACTER.match(piece):
            tokens += [token for token in ptb_tokenize(piece) if not all(map(_is_punctuation, token))]
        elif unicodedata.category(piece).startswith("M") and tokens:
            tokens[-1] += piece
        elif not _is_punctuation(piece):
            tokens.append(piece)
    return tokens


def unbroken(captions: Iterable[Sequence[str]]) -> bool:
    """True when tokenised captions hold tokens of such scripts that are longer than words are."""
    characters = tokens = 0
    for caption in captions:
        for token in caption:
            if not token.isascii() and (found := len(_CHARACTER.findall(token))):
                characters, tokens = characters + found, tokens + 1
    return tokens > 0 and characters > _LONG * tokens


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")
