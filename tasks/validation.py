"""Validation by generation: predictions of all ranks, scored once with the task's own metrics."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unival.data.dataset import DataSource
from unival.errors import ConfigError, DataError, nearest
from unival.evaluate.sheet import Section, prediction_sheet
from unival.modeling.copies import release
from unival.predict.inference import Inference, Prediction
from unival.tasks.options import TaskOptions
from unival.tasks.progress import line, trivial
from unival.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

# What the criterions log in validation; lower is better for all but accuracy.
FALLING = ("loss", "nll_loss", "ppl")
LOGGED = (*FALLING, "accuracy")


class Validation:
    """Predicts the sources of a validation set and scores each with its task's metrics.

    A source whose task has no metric beside the loss (pretraining rows) is not predicted. With several
    sources a metric is called ``<source>_<metric>``.
    """

    def __init__(self, sources: Sequence[DataSource], vocabulary: Vocabulary, options: TaskOptions) -> None:
        self.options = options
        self.sources = {s.name: s for s in sources if options.eval_generate and s.spec.best_metric != "loss"}
        self.prefixed = len(sources) > 1
        self.inference = {
            name: Inference(s.spec, s.options, vocabulary, options.eval_args, options.val_inference_type)
            for name, s in self.sources.items()
        }
        self.predictions: dict[str, list[Prediction]] = {}
        self.latest: dict[str, dict[str, tuple[Any, Any]]] = {}  # source -> id -> (output, reference)
        self.answers: list[str] = []  # of the last validation, all ranks
        self.found: dict[str, list[Prediction]] = {}  # the same by source, in the order of their ids
        self.done = 0  # validations
        self._trivial: tuple[str, float] | None = None

    def metric_names(self) -> list[str]:
        """Names that the scores will have, found by scoring the first row's target against itself."""
        names: list[str] = []
        for name, source in self.sources.items():
            row = source.table[0]
            reference = source.spec.reference(row, source.options)
            if reference is None:
                raise DataError(
                    "no target to score a prediction with (--no-eval-generate)", path=row.path, line=row.line
                )
            answer = reference if isinstance(reference, tuple) else source.spec.answer_of(reference)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one caption is no corpus
                scores = source.spec.score([answer], [reference], source.options, ["first"])
            names += [self._named(name, metric) for metric in scores]
        return names

    def check_metric(self, metric: str) -> None:
        """Refuse a best-checkpoint metric that validation will not produce.

        Raises:
            ConfigError: the nearest name is offered.
        """
        known = [*LOGGED, *self.metric_names()]
        if metric not in known:
            raise ConfigError(
                f"--best-checkpoint-metric '{metric}' is not among {', '.join(known)}.{nearest(metric, known)}"
            )

    def start(self) -> None:
        """Forget the predictions of the validation before."""
        self.predictions = {}

    @torch.no_grad()
    def predict(self, model: nn.Module, sample: Any) -> None:
        """Predict the rows of a batch."""
        for part in sample if isinstance(sample, list) else [sample]:
            inference = self.inference.get(part["source"])
            if inference is not None:
                self.predictions.setdefault(part["source"], []).extend(inference(model, part))

    def scores(self) -> dict[str, float]:
        """Gather the predictions of all ranks and score them; the same on every rank."""
        release()
        result: dict[str, float] = {}
        self.latest = {}
        self.answers = []
        self.found = _gather(self.predictions)
        for name, found in self.found.items():
            source = self.sources[name]
            found.sort(key=lambda p: (p.id, str(p.output)))
            self.latest[name] = {p.id: (p.output, p.reference) for p in found}
            ids = [p.id for p in found]
            self.answers += [str(p.output) for p in found]
            outputs, references = [p.output for p in found], [p.reference for p in found]
            scores = source.spec.score(outputs, references, source.options, ids)
            if self.options.eval_cider_cached_tokens and "cider" in scores:
                scores["cider"] = self._cider(ids, outputs, references)
            result |= {self._named(name, metric): value for metric, value in scores.items()}
            if self.options.eval_print_samples:
                for p in found[:3]:
                    logger.info(f"{p.id}: '{p.output}' (reference: {p.reference})")
        return result

    def line(
        self, begin: str, left: str, scores: Mapping[str, float], metric: str, training: DataSource | None
    ) -> str:
        """Return the one line of the latest validation; ``training``: what trivial predictors are fitted on, once."""
        if not self.done and training is not None and len(self.sources) == 1:
            [source] = self.sources.values()
            self._trivial = trivial(source, training, metric)
        self.done += 1
        found = [p for predictions in self.found.values() for p in predictions]
        return line(begin, left, scores, metric, self._trivial, found)

    def first_look(self, model: nn.Module, sample: Any, training: DataSource, rows: Sequence[int]) -> str:
        """Predict one batch of the only source, ``rows`` of its table, and return its line without begin.

        The scores are those of these rows alone; the first validation has those of all.
        """
        [(name, source)] = self.sources.items()
        found = self.inference[name](model, sample)
        release()
        ids, references = [p.id for p in found], [p.reference for p in found]
        scores = source.spec.score([p.output for p in found], references, source.options, ids)
        metric = source.spec.best_metric
        return line("", "", scores, metric, trivial(source, training, metric, rows), found)

    def sheet(self, title: str) -> Image.Image | None:
        """Draw the latest predictions of some rows of each source; None where there is nothing to draw."""
        if not self.options.eval_pictures:
            return None
        sections = [
            Section(
                f"{title}, {name}" if self.prefixed else title,
                self.sources[name].spec,
                self.sources[name].table,
                found,
            )
            for name, found in self.latest.items()
        ]
        return prediction_sheet(sections, self.options.eval_pictures)

    def _named(self, source: str, metric: str) -> str:
        return f"{source}_{metric}" if self.prefixed else metric

    def _cider(self, ids: list[str], outputs: list[str], references: list[list[str]]) -> float:
        from unival.metrics.caption import training_cider
        from unival.specs.scoring import join_captions

        candidates, truth = join_captions(outputs, references, ids)
        cached = self.options.eval_cider_cached_tokens or "corpus"
        return float(training_cider(candidates, truth, cached).corpus["CIDEr"])


def _gather(own: Mapping[str, list[Prediction]]) -> dict[str, list[Prediction]]:
    parts: list[Any] = [own]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, own)
    merged: dict[str, list[Prediction]] = {}
    for part in parts:
        for name, found in part.items():
            merged.setdefault(name, []).extend(found)
    return dict(sorted(merged.items()))
