"""Caption scores: raw strings to BLEU, ROUGE-L, CIDEr, and METEOR or SPICE through Java when asked for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unival.errors import ConfigError, DataError, nearest
from unival.metrics import characters, java
from unival.metrics.bleu import bleu
from unival.metrics.characters import character_tokenize, unbroken
from unival.metrics.cider import DocumentFrequencies, cider_d, corpus_frequencies, read_frequencies
from unival.metrics.result import CaptionScores, pair, refuse_none
from unival.metrics.rouge import rouge_l
from unival.metrics.tokenizer import ptb_tokenize
from unival.vocabulary.cleaning import delete_punctuation

METRICS = ("cider", "bleu", "rouge", "meteor", "spice")
TOKENIZERS = ("ptb", "ptb-java", "split", "characters")
PROTOCOLS = ("official", "unival")
SPLITTERS: dict[str, Callable[[str], list[str]]] = {
    "ptb": ptb_tokenize,
    "split": str.split,
    "characters": character_tokenize,
}

_Rows = list[tuple[Any, str | None, Sequence[str]]]
_Tokens = list[list[str]]


def caption_scores(
    candidates: Mapping[Any, str] | Sequence[str],
    references: Mapping[Any, Sequence[str]] | Sequence[Sequence[str]],
    metrics: Sequence[str] = ("bleu", "rouge", "cider"),
    tokenizer: str = "ptb",
    *,
    protocol: str = "official",
    document_frequencies: str | Path | DocumentFrequencies = "corpus",
    missing: str = "error",
    java_settings: java.JavaSettings | None = None,
    skip_unavailable: bool = False,
) -> CaptionScores:
    """Score raw captions against raw references, both by id.

    Corpus keys are the official names, in this order if asked for: CIDEr (CIDEr-D, 0 to 10), Bleu_1 to
    Bleu_4, ROUGE_L, METEOR, SPICE (0 to 1); the same per image. Sums run in id order, so the input order
    does not matter.

    tokenizer: "ptb" (Java-free, equal to the official one), "ptb-java" (the original program), "split" (white
    space, for text that is already tokenised), "characters" (for scripts without blanks, see
    :func:`unival.metrics.characters.character_tokenize`).
    protocol: "official", or "unival" for the reference's way: ASCII punctuation is deleted from the
    candidates before tokenisation; with tokenizer "split" from the references too (its CIDEr during
    training, see :func:`training_cider`). document_frequencies: "corpus" (of these references), a table, or
    the path of the reference's cached pickle. missing: see :func:`unival.metrics.result.pair`. A caption
    that is missing under "zero" scores 0 everywhere per image and counts as an empty caption in corpus BLEU
    and METEOR. skip_unavailable: leave out METEOR or SPICE with the reason in ``info["skipped"]`` instead
    of raising when Java or a jar is missing. That is checked before any scoring.

    Raises ConfigError for unknown names or missing programs, DataError for duplicate, missing, unknown or
    mistyped ids, captions that are not strings, and images without references, JavaError if a Java program
    fails.
    """
    settings = java_settings or java.JavaSettings()
    wanted = _check_names(metrics, tokenizer, protocol)
    skipped = _check_programs(wanted, tokenizer, settings, skip_unavailable)
    wanted = [name for name in wanted if name not in skipped]
    frequencies = _frequencies(document_frequencies) if "cider" in wanted else None
    refuse_none(candidates, "caption")
    rows, info = pair(candidates, references, missing)
    _check_texts(rows)
    hyps, truth = _tokenize(rows, tokenizer, protocol, settings)
    corpus, table = _score(wanted, hyps, truth, frequencies, settings)
    absent = [i for i, row in enumerate(rows) if row[1] is None]
    for name, values in table.items():
        for i in absent:
            values[i] = 0.0
        if not name.startswith("Bleu") and name != "METEOR":
            corpus[name] = math.fsum(values) / len(values)
    info |= {
        "metric": "captions",
        "protocol": protocol,
        "tokenizer": tokenizer,
        "scale": "0 to 1, CIDEr (CIDEr-D) 0 to 10",
    }
    if frequencies is not None or "cider" in wanted:
        info["document_frequencies"] = frequencies.source if frequencies else "corpus"
    if {"meteor", "spice"} & set(wanted) or tokenizer == "ptb-java":
        info["java"] = java.java_version(settings)
    if skipped:
        info["skipped"] = skipped
    cautions = []
    if "cider" in wanted and frequencies is None and len(rows) == 1:
        cautions.append("CIDEr of a single image is 0 by construction (log of one document)")
    if unbroken(words for refs in truth for words in refs):
        cautions.append(characters.WARNING)
    if cautions:
        info["warning"] = "; ".join(cautions)
        warnings.warn(info["warning"], stacklevel=2)
    per_image = {row[0]: {name: table[name][i] for name in table} for i, row in enumerate(rows)}
    return CaptionScores({name: corpus[name] for name in table}, per_image, info)


def training_cider(
    candidates: Mapping[Any, str] | Sequence[str],
    references: Mapping[Any, Sequence[str]] | Sequence[Sequence[str]],
    document_frequencies: str | Path | DocumentFrequencies = "corpus",
    missing: str = "error",
) -> CaptionScores:
    """The CIDEr the reference reports while training; not comparable with the official one.

    Punctuation deleted on both sides, split at white space, document frequencies from a cached table. The
    corpus key is ``CIDEr`` and ``info`` says how it was computed.
    """
    return caption_scores(
        candidates,
        references,
        ("cider",),
        "split",
        protocol="unival",
        document_frequencies=document_frequencies,
        missing=missing,
    )


def reference_frequencies(
    references: Sequence[Sequence[str]], tokenizer: str = "ptb", protocol: str = "official"
) -> DocumentFrequencies:
    """Document frequencies of raw references, one list per image, for :func:`caption_scores`.

    Scoring all images with the frequencies of their own references is what "corpus" does.
    """
    _check_names(METRICS, tokenizer, protocol)
    rows: _Rows = [(number, None, refs) for number, refs in enumerate(references)]
    _check_texts(rows)
    _, truth = _tokenize(rows, tokenizer, protocol, java.JavaSettings())
    return corpus_frequencies([[_split_blanks(words) for words in refs] for refs in truth])


def _check_names(metrics: Sequence[str], tokenizer: str, protocol: str) -> list[str]:
    if isinstance(metrics, str):
        metrics = [metrics]
    for value, known, kind in (
        *((name, METRICS, "metric") for name in metrics),
        (tokenizer, TOKENIZERS, "tokenizer"),
        (protocol, PROTOCOLS, "protocol"),
    ):
        if value not in known:
            raise ConfigError(
                f"unknown {kind} {value!r}: choose from {', '.join(known)}.{nearest(value, known)}"
            )
    if not metrics:
        raise ConfigError(f"no metric asked for: choose from {', '.join(METRICS)}")
    return [name for name in METRICS if name in metrics]


def _check_programs(
    wanted: Sequence[str], tokenizer: str, settings: java.JavaSettings, skip: bool
) -> dict[str, str]:
    skipped: dict[str, str] = {}
    programs = [name for name in wanted if name in ("meteor", "spice")]
    for name in [*programs, *(["ptb-java"] if tokenizer == "ptb-java" else [])]:
        reason = java.unavailable(name, settings)
        if reason and skip and name != "ptb-java":
            skipped[name] = reason
        elif reason:
            raise ConfigError(reason)
    if len(skipped) == len(wanted):
        raise ConfigError("; ".join(skipped.values()))
    return skipped


def _frequencies(source: str | Path | DocumentFrequencies) -> DocumentFrequencies | None:
    if isinstance(source, DocumentFrequencies):
        return source
    return None if source == "corpus" else read_frequencies(source)


def _check_texts(rows: _Rows) -> None:
    for key, text, refs in rows:
        if text is not None and not isinstance(text, str):
            raise DataError(f"id {key!r}: the caption is {text!r}, not a string")
        if isinstance(refs, str) or not isinstance(refs, Sequence) or not refs:
            raise DataError(f"id {key!r} has no list of references but {refs!r}")
        for ref in refs:
            if not isinstance(ref, str):
                raise DataError(f"id {key!r}: a reference is {ref!r}, not a string")


def _tokenize(
    rows: _Rows, tokenizer: str, protocol: str, settings: java.JavaSettings
) -> tuple[_Tokens, list[_Tokens]]:
    hyps = [row[1] or "" for row in rows]
    refs = [list(row[2]) for row in rows]
    if protocol == "unival":
        hyps = [delete_punctuation(text).strip() for text in hyps]
        if tokenizer == "split":
            refs = [[delete_punctuation(text).strip() for text in texts] for texts in refs]
    if tokenizer == "ptb-java":
        flat = java.java_tokenize([text for texts in refs for text in texts], settings)
        ends = iter(flat)
        return java.java_tokenize(hyps, settings), [[next(ends) for _ in texts] for texts in refs]
    split = SPLITTERS[tokenizer]
    return [split(text) for text in hyps], [[split(text) for text in texts] for texts in refs]


def _split_blanks(tokens: Sequence[str]) -> Sequence[str]:
    # The official BLEU and CIDEr split the joined caption again, also at no-break spaces inside tokens;
    # ROUGE-L and METEOR do not.
    joined = " ".join(tokens)
    return tokens if joined.isascii() else joined.split()


def _score(
    wanted: Sequence[str],
    hyps: _Tokens,
    truth: list[_Tokens],
    frequencies: DocumentFrequencies | None,
    settings: java.JavaSettings,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    table: dict[str, list[float]] = {}
    corpus: dict[str, float] = {}
    if "cider" in wanted or "bleu" in wanted:
        fine_hyps = [_split_blanks(words) for words in hyps]
        fine_truth = [[_split_blanks(words) for words in refs] for refs in truth]
    if "cider" in wanted:
        table["CIDEr"] = cider_d(fine_hyps, fine_truth, frequencies or corpus_frequencies(fine_truth))
    if "bleu" in wanted:
        values, per_item = bleu(fine_hyps, fine_truth)
        for n, value in enumerate(values):
            corpus[f"Bleu_{n + 1}"] = value
            table[f"Bleu_{n + 1}"] = [item[n] for item in per_item]
    if "rouge" in wanted:
        table["ROUGE_L"] = rouge_l(hyps, truth)
    if "meteor" in wanted:
        corpus["METEOR"], table["METEOR"] = java.meteor(hyps, truth, settings)
    if "spice" in wanted:
        corpus["SPICE"], table["SPICE"] = java.spice(hyps, truth, settings)
    return corpus, table
