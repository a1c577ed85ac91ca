"""Settings of generation and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unival.core.options import check_types
from unival.errors import ConfigError, nearest
from unival.generate.constraints import parse_range

ALIASES = {"beam_size": "beam", "len_penalty": "lenpen", "unk_penalty": "unkpen"}


@dataclass(frozen=True)
class GenerationSettings:
    """Decoding options under fairseq's names, with the reference's defaults.

    A hypothesis has ``len`` tokens, eos and forced prefix tokens included; its score is the sum of its
    log-probabilities, divided by ``len ** lenpen`` unless ``unnormalized``. A row may have
    ``int(max_len_a * its source length + max_len_b)`` tokens before eos; there eos is forced.
    """

    beam: int = field(default=5, metadata={"help": "beams, or samples with sampling, per row"})
    max_len_a: float = field(default=0.0, metadata={"help": "longest output per source token"})
    max_len_b: int = field(default=200, metadata={"help": "longest output, constant part"})
    min_len: int = field(default=1, metadata={"help": "fewest tokens before the end symbol"})
    lenpen: float = field(default=1.0, metadata={"help": "exponent of the length in normalised scores"})
    unnormalized: bool = field(default=False, metadata={"help": "do not divide scores by the length"})
    temperature: float = field(default=1.0, metadata={"help": "logits are divided by this"})
    no_repeat_ngram_size: int = field(default=0, metadata={"help": "no n-gram of this size occurs twice"})
    unkpen: float = field(default=0.0, metadata={"help": "taken off the score of the unknown symbol"})
    stop_on_max_len: bool = field(
        default=True,
        metadata={"help": "accept fewer than beam hypotheses at the length limit; if not, that is an error"},
    )
    sampling: bool = field(default=False, metadata={"help": "sample instead of searching"})
    sampling_topk: int = field(default=-1, metadata={"help": "sample among this many best tokens"})
    sampling_topp: float = field(default=-1.0, metadata={"help": "sample among the best with this mass"})
    gen_code: bool = field(default=False, metadata={"help": "decode image codes"})
    constraint_range: str | None = field(default=None, metadata={"help": "'start,end': only these tokens"})
    zero_shot: bool = field(
        default=False, metadata={"help": "constrain after the softmax: probabilities are not renormalised"}
    )
    seed: int = field(default=1, metadata={"help": "seed of sampling"})

    def __post_init__(self) -> None:
        check_types(self, "generation setting")
        checks = {
            "beam": (self.beam >= 1, "at least 1"),
            "max_len_a": (self.max_len_a >= 0, "0 or more"),
            "max_len_b": (self.max_len_b >= 0, "0 or more"),
            "min_len": (self.min_len >= 0, "0 or more"),
            "temperature": (self.temperature > 0, "above 0"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "0 or more"),
            "sampling_topk": (self.sampling_topk == -1 or self.sampling_topk >= 1, "-1 or at least 1"),
            "sampling_topp": (self.sampling_topp == -1 or 0 < self.sampling_topp <= 1, "-1 or in (0, 1]"),
        }
        for name, (fits, expected) in checks.items():
            if not fits:
                raise ConfigError(f"generation setting {name} {getattr(self, name)}: expected {expected}")
        if not self.sampling and (self.sampling_topk != -1 or self.sampling_topp != -1):
            raise ConfigError("sampling_topk and sampling_topp need sampling: true")
        if self.sampling_topk != -1 and self.sampling_topp != -1:
            raise ConfigError("sampling_topk and sampling_topp exclude each other: give one of them")
        parse_range(self.constraint_range)

    @classmethod
    def of(cls, settings: GenerationSettings | Mapping[str, Any] | None) -> GenerationSettings:
        """Return settings from a mapping (``beam_size`` and other long names of fairseq are understood).

        Raises ConfigError for an unknown name, offering the nearest.
        """
        if isinstance(settings, GenerationSettings):
            return settings
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in (settings or {}).items():
            target = ALIASES.get(name, name).replace("-", "_")
            if target not in known:
                raise ConfigError(f"unknown generation setting '{name}'.{nearest(target, known)}")
            values[target] = value
        return cls(**values)


@dataclass(frozen=True)
class Hypothesis:
    """One output: ``tokens`` end in eos and hold no bos; ``positional_scores`` are per token, in order.

    ``cut``: the length limit forced the end, it was not the model's choice.
    """

    tokens: list[int]
    score: float
    positional_scores: list[float]
    cut: bool = False
