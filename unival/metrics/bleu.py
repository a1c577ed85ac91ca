"""Corpus and sentence BLEU 1 to 4 (Papineni et al. 2002) with the COCO caption evaluation's conventions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

ORDER = 4
# The COCO tool's guards against 0/0. They are part of the official value (they show at 1e-10).
_TINY = 1e-15
_SMALL = 1e-9


def ngrams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    """All n-grams of one length, in order."""
    return zip(*(words[i:] for i in range(n)), strict=False)


def ngram_counts(words: Sequence[str], order: int = ORDER) -> Counter[tuple[str, ...]]:
    """Counts of all n-grams of length 1 to ``order``."""
    counts: Counter[tuple[str, ...]] = Counter()
    for n in range(1, order + 1):
        counts.update(ngrams(words, n))
    return counts


def bleu_counts(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], order: int = ORDER
) -> list[list[int]]:
    """What corpus BLEU sums over captions: matched and guessed n-grams of length 1 to ``order``, the two lengths.

    ``candidates[i]`` are the tokens of caption i, ``references[i]`` its references' tokens. The second length is
    that of the reference closest to the candidate's, the shorter on a tie.
    """
    rows = []
    for words, refs in zip(candidates, references, strict=True):
        guessed = ngram_counts(words, order)
        best: dict[tuple[str, ...], int] = {}
        for ref in refs:
            counts = ngram_counts(ref, order)
            for gram in guessed.keys() & counts.keys():
                if counts[gram] > best.get(gram, 0):
                    best[gram] = counts[gram]
        matched = [0] * order
        for gram, count in best.items():
            matched[len(gram) - 1] += min(count, guessed[gram])
        length = len(words)
        target = min((abs(len(ref) - length), len(ref)) for ref in refs)[1]
        rows.append([*matched, *(max(0, length - n) for n in range(order)), length, target])
    return rows


def bleu_of_counts(sums: Sequence[float]) -> list[float]:
    """BLEU 1 to ``order`` of the counts of a caption, or of their sums over captions."""
    order = len(sums) // 2 - 1
    length, target = sums[-2:]
    product, values = 1.0, []
    for n in range(order):
        product *= (sums[n] + _TINY) / (sums[order + n] + _SMALL)
        values.append(product ** (1.0 / (n + 1)))
    ratio = (length + _TINY) / (target + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return [value * penalty for value in values]


def bleu(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], order: int = ORDER
) -> tuple[list[float], list[list[float]]]:
    """BLEU of tokenised captions: the corpus values for n = 1 to ``order``, and the same list per caption."""
    rows = bleu_counts(candidates, references, order)
    totals = [sum(column) for column in zip(*rows, strict=True)] or [0] * (2 * order + 2)
    return bleu_of_counts(totals), [bleu_of_counts(row) for row in rows]
