"""From a batch to decoded predictions: the one path of validation, evaluation and use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from unival.errors import ConfigError, nearest
from unival.generate import AnswerTree, GenerationSettings, Hypothesis, generate, rank_candidates
from unival.modeling.encoding import encoded_once
from unival.specs import SpecOptions, TaskSpec
from unival.specs.answers import encode_answer
from unival.vocabulary.vocabulary import Vocabulary

MODES = ("beamsearch", "allcand", "open")
ALIASES = {"trie": "beamsearch", "rank": "allcand"}


@dataclass(frozen=True)
class Prediction:
    """One decoded answer: text, box (x0, y0, x1, y1 in input pixels) or image codes, its score (a
    log-probability unless the task reranks), n-best."""

    id: str
    output: Any
    score: float
    reference: Any = None
    tokens: tuple[int, ...] = ()
    n_best: tuple[tuple[Any, float], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class _Place:
    """A row of a batch, as decoding sees it (unival.batching.batch.Asked)."""

    prefix: Tensor
    size: tuple[int, int] | None
    resize: tuple[float, float] | None


class Inference:
    """Decodes batches of one task.

    ``mode``: "beamsearch" keeps the task's constraint (answer trie or token range) during search,
    "allcand" scores every candidate of a closed list, "open" searches without a constraint. "trie" and "rank"
    are the first two with a closed list of answers required. ``None`` takes the task's own choice.
    ``settings`` override the task's decoding defaults by name.

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
        if mode is not None and not isinstance(mode, str):
            raise ConfigError(f"inference mode is {mode!r}: expected one of {', '.join((*MODES, *ALIASES))}")
        self.mode = ALIASES.get(mode or "", mode or spec.inference)
        if self.mode not in MODES:
            known = (*MODES, *ALIASES)
            raise ConfigError(
                f"inference mode '{self.mode}' is not one of {', '.join(known)}.{nearest(self.mode, known)}"
            )
        # an open question needs no list, not even one that the options name
        self.candidates: Sequence[str] | None = None if self.mode == "open" else spec.candidates(options)
        if not self.candidates and (mode in ALIASES or self.mode == "allcand"):
            raise ConfigError(
                f"mode '{mode or self.mode}': task '{spec.name}' has no closed list of answers here; "
                "name one with ans2label_file (text lines, JSON or the released pickle), or use mode 'open'"
            )
        self.settings = GenerationSettings.of({**spec.decoding(options), **(settings or {})})
        self.constraint = None if self.mode == "open" else spec.constraint(options, vocabulary)
        self._candidate_tokens = [encode_answer(vocabulary, text) for text in self.candidates or ()]
        ranks = self.mode == "allcand"
        self._tree = AnswerTree(self._candidate_tokens, self.constraint) if ranks else None

    def describe(self) -> dict[str, Any]:
        """Mode, closed list and decoding settings, for the result file."""
        if self.candidates is None:
            return {"mode": self.mode, **asdict(self.settings)}
        digest = hashlib.sha256("\n".join(self.candidates).encode("utf-8")).hexdigest()
        answers = {"answers": len(self.candidates), "answers_sha256": digest}
        return {"mode": self.mode, **answers, **asdict(self.settings)}

    @torch.no_grad()
    def __call__(self, model: nn.Module, batch: Mapping[str, Any], n_best: int = 1) -> list[Prediction]:
        """Predict every row of a collated batch; the result keeps the row order."""
        if self.mode == "allcand":
            return self._rank(model, batch, n_best)
        predictions = []
        for row, found in enumerate(self._found(model, batch)):
            if not found:
                raise ConfigError(
                    f"row {batch['id'][row]}: no output ends within max_len_b {self.settings.max_len_b} tokens, "
                    f"{len(self._prefix(batch, row))} of which are the forced prefix; raise max_len_b in eval_args"
                )
            looked_at = found if self.spec.reranks else found[:n_best]
            decoded = [(self.decode(batch, row, item.tokens), float(item.score)) for item in looked_at]
            device = str(batch["net_input"]["src_tokens"].device)
            best = self.spec.rerank(decoded, batch, row, self.options, device)[:n_best]
            place, output, score = best[0]
            predictions.append(
                Prediction(
                    id=batch["id"][row],
                    output=output,
                    score=score,
                    reference=batch["references"][row],
                    tokens=tuple(int(token) for token in found[place].tokens),
                    n_best=tuple((pair[1], pair[2]) for pair in best) if n_best > 1 else (),
                )
            )
        return predictions

    def _found(self, model: nn.Module, batch: Mapping[str, Any]) -> list[list[Hypothesis]]:
        """Hypotheses per row over all rounds of sampling, best first; rounds bound the memory of many samples."""
        if not self.settings.sampling:
            return self.search(model, batch)
        with encoded_once():
            found = self.search(model, batch)
            for number in range(1, self.options.sampling_times):
                more = self.search(model, batch, seed=self.settings.seed + number)
                found = [sorted(a + b, key=lambda h: -h.score) for a, b in zip(found, more, strict=True)]
        return found

    def search(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        row_keys: Sequence[int] | None = None,
        seed: int | None = None,
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of every row of a collated batch, undecoded (see :func:`generate`)."""
        return generate(
            model,
            batch["net_input"],
            self.settings if seed is None else replace(self.settings, seed=seed),
            constraint=self.constraint,
            prefix_tokens=batch["prefix_tokens"],
            row_keys=row_keys,
        )

    def decode(self, batch: Mapping[str, Any], row: int, tokens: Iterable[int]) -> Any:
        """Decode tokens generated for one row (a forced prefix included) as its task does."""
        prefix = torch.tensor(self._prefix(batch, row), dtype=torch.int64)
        asked = _Place(prefix, batch["sizes"][row], batch["resizes"][row])
        return self.spec.decode(tokens, asked, self.vocabulary, self.options)

    def _rank(self, model: nn.Module, batch: Mapping[str, Any], n_best: int) -> list[Prediction]:
        assert self.candidates is not None and self._tree is not None
        prefixes = [self._prefix(batch, row) for row in range(len(batch["id"]))]
        best = n_best if n_best < len(self.candidates) else None
        scores = rank_candidates(model, batch["net_input"], self._tree, prompts=prefixes, best=best)
        predictions = []
        for row, values in enumerate(scores):
            order = values.argsort(descending=True, stable=True)[:n_best].tolist()
            best = order[0]
            predictions.append(
                Prediction(
                    id=batch["id"][row],
                    output=self.candidates[best],
                    score=float(values[best]),
                    reference=batch["references"][row],
                    tokens=tuple(self._candidate_tokens[best]),
                    n_best=tuple((self.candidates[k], float(values[k])) for k in order) if n_best > 1 else (),
                )
            )
        return predictions

    def _prefix(self, batch: Mapping[str, Any], row: int) -> list[int]:
        if batch["prefix_tokens"] is None:
            return []
        return [t for t in batch["prefix_tokens"][row].tolist() if t != self.vocabulary.pad]
