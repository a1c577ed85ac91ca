"""From a batch to decoded predictions: the one path of validation, evaluation and use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from unival.batch import Example
from unival.errors import ConfigError, nearest
from unival.generate import GenerationSettings, generate, rank_candidates
from unival.specs import SpecOptions, TaskSpec
from unival.vocabulary import Vocabulary

MODES = ("beamsearch", "allcand", "open")


@dataclass(frozen=True)
class Prediction:
    """One decoded answer: text or box (x0, y0, x1, y1 in input pixels), its log-probability, n-best if asked."""

    id: str
    output: Any
    score: float
    reference: Any = None
    tokens: tuple[int, ...] = ()
    n_best: tuple[tuple[Any, float], ...] = field(default=())


class Inference:
    """Decodes batches of one task.

    ``mode``: "beamsearch" keeps the task's constraint (answer trie or token range) during search,
    "allcand" scores every candidate of a closed list, "open" searches without a constraint. ``None``
    takes the task's own choice. ``settings`` override the task's decoding defaults by name.

    Raises:
        ConfigError: an unknown mode or setting, or "allcand" without a closed list of answers.
    """

    def __init__(
        self,
        spec: TaskSpec,
        options: SpecOptions,
        vocabulary: Vocabulary,
        settings: Mapping[str, Any] | None = None,
        mode: str | None = None,
    ) -> None:
        self.spec, self.options, self.vocabulary = spec, options, vocabulary
        self.mode = mode or spec.inference
        if self.mode not in MODES:
            raise ConfigError(f"inference mode '{self.mode}' is not one of {', '.join(MODES)}.{nearest(self.mode, MODES)}")
        self.candidates: Sequence[str] | None = spec.candidates(options)
        if self.mode == "allcand" and not self.candidates:
            raise ConfigError(f"task '{spec.name}' has no closed list of answers to rank; give ans2label_file")
        self.settings = GenerationSettings.of({**spec.generation, **(settings or {})})
        self.constraint = None if self.mode == "open" else spec.constraint(options, vocabulary)
        self._candidate_tokens = [vocabulary.encode(f" {text}") for text in self.candidates or ()]

    def describe(self) -> dict[str, Any]:
        """Mode and decoding settings, for the result file."""
        return {"mode": self.mode, **asdict(self.settings)}

    @torch.no_grad()
    def __call__(self, model: nn.Module, batch: Mapping[str, Any], n_best: int = 1) -> list[Prediction]:
        """Predict every row of a collated batch; the result keeps the row order."""
        prefixes = self._prefixes(batch)
        if self.mode == "allcand":
            return self._rank(model, batch, prefixes)
        hypotheses = generate(
            model,
            batch["net_input"],
            self.settings,
            constraint=self.constraint,
            prefix_tokens=batch["prefix_tokens"],
        )
        predictions = []
        for row, found in enumerate(hypotheses):
            example = self._example(batch, row, prefixes[row])
            decoded = [
                (self.spec.decode(item.tokens, example, self.vocabulary, self.options), float(item.score))
                for item in found[:n_best]
            ]
            predictions.append(
                Prediction(
                    id=batch["id"][row],
                    output=decoded[0][0],
                    score=decoded[0][1],
                    reference=batch["references"][row],
                    tokens=tuple(int(token) for token in found[0].tokens),
                    n_best=tuple(decoded) if n_best > 1 else (),
                )
            )
        return predictions

    def _rank(self, model: nn.Module, batch: Mapping[str, Any], prefixes: list[list[int]]) -> list[Prediction]:
        assert self.candidates is not None
        scores = rank_candidates(
            model, batch["net_input"], self._candidate_tokens, prompts=prefixes, constraint=self.constraint
        )
        predictions = []
        for row, values in enumerate(scores):
            best = int(values.argmax())
            predictions.append(
                Prediction(
                    id=batch["id"][row],
                    output=self.candidates[best],
                    score=float(values[best]),
                    reference=batch["references"][row],
                    tokens=tuple(self._candidate_tokens[best]),
                )
            )
        return predictions

    def _prefixes(self, batch: Mapping[str, Any]) -> list[list[int]]:
        if batch["prefix_tokens"] is None:
            return [[] for _ in batch["id"]]
        return [[t for t in row if t != self.vocabulary.pad] for row in batch["prefix_tokens"].tolist()]

    @staticmethod
    def _example(batch: Mapping[str, Any], row: int, prefix: list[int]) -> Example:
        empty = torch.zeros(0, dtype=torch.int64)
        return Example(
            id=batch["id"][row],
            source=empty,
            target=empty,
            prev_output=empty,
            prefix=torch.tensor(prefix, dtype=torch.int64),
            size=batch["sizes"][row],
            resize=batch["resizes"][row],
        )
