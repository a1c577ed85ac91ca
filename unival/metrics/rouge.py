"""ROUGE-L (Lin 2004) as the COCO caption evaluation computes it."""

from __future__ import annotations

from collections.abc import Sequence

_BETA = 1.2


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence of two token sequences.

    Bit-parallel (Allison and Dix 1986; Hyyro 2004): one big integer holds a row of the usual table, so the
    cost is one few-word integer step per token instead of one step per table cell.
    """
    where: dict[str, int] = {}
    for i, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        hits = row & where.get(word, 0)
        row = (row + hits | row - hits) & full
    return len(a) - row.bit_count()


def rouge_l(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[float]:
    """ROUGE-L per caption: F (beta 1.2) of the best precision and the best recall over the references.

    Best precision and best recall may come from different references, as in the official tool. An empty
    caption counts as one empty token, so it matches an empty reference.
    """
    scores = []
    for words, refs in zip(candidates, references, strict=True):
        words = words or [""]
        precision = recall = 0.0
        for ref in refs:
            ref = ref or [""]
            length = common_subsequence(ref, words)
            precision = max(precision, length / len(words))
            recall = max(recall, length / len(ref))
        if precision and recall:
            scores.append((1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision))
        else:
            scores.append(0.0)
    return scores
