"""From predictions to metrics and per-item scores, with the scorers that training-time validation uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unival.errors import ConfigError, DataError
from unival.metrics.bleu import bleu_counts
from unival.metrics.java import JavaSettings
from unival.metrics.result import listing
from unival.specs import SpecOptions, TaskSpec
from unival.specs.scoring import join_captions, score_captions

CAPTION_METRICS = ("bleu", "rouge", "cider")


@dataclass(frozen=True)
class Scoring:
    """What to compute for captions; other tasks have one set of metrics.

    ``metrics``: of bleu, rouge, cider, meteor, spice (the last two need Java, found by ``java``).
    ``document_frequencies``: "corpus" or the path of a cached table.
    """

    metrics: tuple[str, ...] = CAPTION_METRICS
    tokenizer: str = "ptb"
    document_frequencies: str = "corpus"
    java: JavaSettings = field(default_factory=JavaSettings)

    def described(self) -> dict[str, Any]:
        """What decides the scores, for the result."""
        return {name: value for name, value in asdict(self).items() if name != "java"}


@dataclass(frozen=True)
class Scored:
    """``metrics`` over the whole set; ``per_item``: metric -> (n,) in the order of ``keys``.

    ``counts`` (n, 10) are the sums that corpus BLEU is made of, for captions. ``info`` says what was
    computed: protocol, tokeniser, document frequencies, scale, warnings.
    """

    metrics: dict[str, float]
    keys: list[str]
    per_item: dict[str, npt.NDArray[np.float64]]
    info: dict[str, Any] = field(default_factory=dict)
    counts: npt.NDArray[np.float64] | None = None


def check(spec: TaskSpec, options: SpecOptions, scoring: Scoring) -> None:
    """Raise ConfigError for a metric that cannot be computed here, before anything is predicted."""
    from unival.metrics import java
    from unival.metrics.caption import METRICS, TOKENIZERS
    from unival.metrics.cider import read_frequencies

    if not spec.joins_ids:
        if replace(scoring, java=JavaSettings()) != Scoring():
            raise ConfigError(
                f"metrics, tokenizer and document frequencies are for captions, not task '{spec.name}'"
            )
        return
    unknown = [name for name in scoring.metrics if name not in METRICS]
    if unknown or not scoring.metrics:
        raise ConfigError(f"unknown metric '{', '.join(unknown)}': choose from {', '.join(METRICS)}")
    if scoring.tokenizer not in TOKENIZERS:
        raise ConfigError(f"unknown tokenizer '{scoring.tokenizer}': choose from {', '.join(TOKENIZERS)}")
    programs = [name for name in scoring.metrics if name in ("meteor", "spice")]
    for name in [*programs, *(["ptb-java"] if scoring.tokenizer == "ptb-java" else [])]:
        reason = java.unavailable(name, scoring.java)
        if reason:
            raise ConfigError(f"{reason} Nothing was predicted; leave '{name}' out, or install it first.")
    if scoring.document_frequencies != "corpus":
        read_frequencies(scoring.document_frequencies)


def check_answers(
    spec: TaskSpec, options: SpecOptions, ids: Sequence[str], raw_answers: Sequence[Any]
) -> None:
    """Raise DataError when the official VQA accuracy is asked for and rows lack the human answers."""
    if options.protocol != "official" or spec.official != "vqa":
        return
    without = [name for name, raw in zip(ids, raw_answers, strict=True) if not isinstance(raw, list)]
    if without:
        raise DataError(
            "the official VQA accuracy needs every row's human answers as a list: column 'human_answers' of prepared "
            f"tables, or 'answers' in JSONL; there is none in {listing(without)}. Or leave --protocol official out."
        )


def score_predictions(
    spec: TaskSpec,
    predictions: Sequence[Any],
    references: Sequence[Any],
    options: SpecOptions,
    ids: Sequence[str],
    scoring: Scoring | None = None,
    raw_answers: Sequence[Any] | None = None,
) -> Scored:
    """Score predictions of rows, paired by position.

    Captions of rows with one id are one item (the first prediction) with all their references. For other
    tasks every row is an item, and a metric is the mean of the items' values. ``raw_answers``: per row the
    list of human answers, for the official VQA accuracy (``protocol: official``).
    Raises DataError for a row without a reference.
    """
    missing = [name for name, reference in zip(ids, references, strict=True) if reference is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} rows carry no target to score against: {listing(missing)}"
        )
    if spec.joins_ids:
        return _score_captions(predictions, references, options, ids, scoring or Scoring())
    metrics = spec.score(predictions, references, options, ids)
    rows = [
        spec.score([output], [reference], options, [name])
        for output, reference, name in zip(predictions, references, ids, strict=True)
    ]
    per_item = {name: np.array([row[name] for row in rows]) for name in metrics}
    of_all, about = spec.whole_set(predictions, references, options)
    metrics = {**metrics, **of_all}
    info: dict[str, Any] = {"protocol": "unival", "scale": "0 to 1", **about}
    if options.protocol == "official" and spec.official == "vqa" and raw_answers is not None:
        metrics, per_item = _official_answers(predictions, raw_answers, metrics, per_item)
        info["protocol"] = "official: vqa_accuracy is the VQA tool's, vqa_score the reference's exact match"
    return Scored(metrics, list(ids), per_item, info)


def main_metric(spec: TaskSpec, options: SpecOptions, metrics: Mapping[str, float]) -> str:
    """Return the metric that counts: the task's, or the first of those computed."""
    if "vqa_accuracy" in metrics:
        return "vqa_accuracy"
    return spec.best_metric if spec.best_metric in metrics or not metrics else next(iter(metrics))


def _score_captions(
    predictions: Sequence[Any],
    references: Sequence[Any],
    options: SpecOptions,
    ids: Sequence[str],
    scoring: Scoring,
) -> Scored:
    from unival.metrics import ptb_tokenize
    from unival.metrics.caption import SPLITTERS

    candidates, truth = join_captions(predictions, references, ids)
    scores = score_captions(
        candidates,
        truth,
        metrics=scoring.metrics,
        tokenizer=scoring.tokenizer,
        protocol=options.protocol,
        document_frequencies=scoring.document_frequencies,
        java_settings=scoring.java,
    )
    keys = list(candidates)
    per_item = {name: np.array([scores.per_item[key][name] for key in keys]) for name in scores.corpus}
    counts = None
    if "bleu" in scoring.metrics:
        split = SPLITTERS.get(scoring.tokenizer, ptb_tokenize)
        words = [" ".join(split(candidates[key])).split() for key in keys]
        refs = [[" ".join(split(text)).split() for text in truth[key]] for key in keys]
        counts = np.array(bleu_counts(words, refs), dtype=np.float64)
    info = {**scores.info, "references_per_item": sum(map(len, truth.values())) / len(truth)}
    return Scored(dict(scores.corpus), keys, per_item, info, counts)


def _official_answers(
    predictions: Sequence[Any],
    raw_answers: Sequence[Any],
    metrics: dict[str, float],
    per_item: dict[str, npt.NDArray[np.float64]],
) -> tuple[dict[str, float], dict[str, npt.NDArray[np.float64]]]:
    from unival.metrics.vqa import vqa_accuracy

    rows = {str(k): str(output) for k, output in enumerate(predictions)}
    scores = vqa_accuracy(rows, {str(k): raw for k, raw in enumerate(raw_answers)})
    values = np.array([scores.per_item[str(k)]["accuracy"] for k in range(len(predictions))])
    return {"vqa_accuracy": float(scores), **metrics}, {"vqa_accuracy": values, **per_item}
