"""Corpus and sentence BLEU 1 to 4 (Papineni et al. 2002) with the COCO caption evaluation's conventions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

# The COCO tool's guards against 0/0. They are part of the official value (they show at 1e-10).
_TINY = 1e-15
_SMALL = 1e-9


def ngram_counts(words: Sequence[str], order: int = 4) -> Counter[tuple[str, ...]]:
    """Counts of all n-grams of length 1 to ``order``."""
    counts: Counter[tuple[str, ...]] = Counter()
    for n in range(1, order + 1):
        counts.update(zip(*(words[i:] for i in range(n)), strict=False))
    return counts


def _score(matched: Sequence[float], guessed: Sequence[float], length: float, target: float) -> list[float]:
    product, values = 1.0, []
    for n, (good, total) in enumerate(zip(matched, guessed, strict=True), start=1):
        product *= (good + _TINY) / (total + _SMALL)
        values.append(product ** (1.0 / n))
    ratio = (length + _TINY) / (target + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return [value * penalty for value in values]


def bleu(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], order: int = 4
) -> tuple[list[float], list[list[float]]]:
    """BLEU of tokenised captions.

    ``candidates[i]`` are the tokens of caption i, ``references[i]`` its references' tokens. Returns the
    corpus values for n = 1 to ``order`` and the same list per caption. The brevity penalty takes the
    reference length closest to the candidate's, the shorter on a tie.
    """
    totals = [[0] * order, [0] * order]
    length_total = target_total = 0
    per_item: list[list[float]] = []
    for words, refs in zip(candidates, references, strict=True):
        best: Counter[tuple[str, ...]] = Counter()
        for ref in refs:
            best |= ngram_counts(ref, order)
        matched = [0] * order
        for gram, count in ngram_counts(words, order).items():
            matched[len(gram) - 1] += min(count, best.get(gram, 0))
        length = len(words)
        guessed = [max(0, length - n) for n in range(order)]
        target = min((abs(len(ref) - length), len(ref)) for ref in refs)[1]
        per_item.append(_score(matched, guessed, length, target))
        for n in range(order):
            totals[0][n] += matched[n]
            totals[1][n] += guessed[n]
        length_total += length
        target_total += target
    return _score(totals[0], totals[1], length_total, target_total), per_item
