"""Caption scores: from raw strings to BLEU, ROUGE-L, CIDEr (and METEOR, SPICE through Java when asked for)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError
from .bleu import bleu
from .cider import cider_d
from .result import CaptionScores, pair
from .rouge import rouge_l
from .tokenizer import ptb_tokenize


def caption_scores(
    candidates: Mapping[Any, str] | Sequence[str],
    references: Mapping[Any, Sequence[str]] | Sequence[Sequence[str]],
    metrics: Sequence[str] = ("bleu", "rouge", "cider"),
    missing: str = "error",
) -> CaptionScores:
    """Score raw captions; corpus keys are the official names Bleu_1..4, ROUGE_L, CIDEr (scale 0 to 1, CIDEr 0 to 10)."""
    rows, info = pair(candidates, references, missing)
    for key, text, refs in rows:
        if not refs:
            raise DataError(f"id {key!r} has no references")
        if text is not None and not isinstance(text, str):
            raise DataError(f"id {key!r}: the caption is {text!r}, not a string")
    hyps = [ptb_tokenize(text or "") for _, text, _ in rows]
    truth = [[ptb_tokenize(ref) for ref in refs] for _, _, refs in rows]
    table: dict[str, list[float]] = {}
    corpus: dict[str, float] = {}
    if "cider" in metrics:
        table["CIDEr"] = cider_d(hyps, truth)
        corpus["CIDEr"] = math.fsum(table["CIDEr"]) / len(rows)
    if "bleu" in metrics:
        values, per_item = bleu(hyps, truth)
        for n in range(4):
            corpus[f"Bleu_{n + 1}"] = values[n]
            table[f"Bleu_{n + 1}"] = [item[n] for item in per_item]
    if "rouge" in metrics:
        table["ROUGE_L"] = rouge_l(hyps, truth)
        corpus["ROUGE_L"] = math.fsum(table["ROUGE_L"]) / len(rows)
    per_image = {row[0]: {name: table[name][i] for name in table} for i, row in enumerate(rows)}
    return CaptionScores(corpus, per_image, info)
