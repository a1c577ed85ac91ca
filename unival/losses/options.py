"""Options and results of the losses."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from unival.errors import ConfigError, nearest
from unival.generate.constraints import parse_range


@dataclass(frozen=True)
class LossOptions:
    """Options of the label-smoothed cross entropy; names and defaults are the reference's.

    ``drop_best_ratio`` keeps its documented meaning here. The reference parses it but never hands it to the
    loss, so runs that should equal the reference leave it at zero whatever its scripts say.
    """

    label_smoothing: float = field(default=0.0, metadata={"help": "epsilon of label smoothing"})
    sentence_avg: bool = field(default=False, metadata={"help": "divide by sentences, not by tokens"})
    report_accuracy: bool = field(default=False, metadata={"help": "count the tokens whose argmax is right"})
    ignore_prefix_size: int = field(default=0, metadata={"help": "target positions left out at the start"})
    ignore_eos: bool = field(default=False, metadata={"help": "leave the end symbol out of the loss"})
    drop_worst_ratio: float = field(default=0.0, metadata={"help": "share of the largest losses left out"})
    drop_worst_after: int = field(default=0, metadata={"help": "updates before drop_worst_ratio acts"})
    use_rdrop: bool = field(default=False, metadata={"help": "R-Drop: two passes and their divergence"})
    reg_alpha: float = field(default=1.0, metadata={"help": "weight of the R-Drop divergence"})
    constraint_range: str | None = field(default=None, metadata={"help": "'start,end': only these tokens"})
    encouraging: bool = field(default=False, metadata={"help": "add the encouraging bonus"})
    log_end: float = field(default=0.75, metadata={"help": "probability from which the bonus is linear"})
    drop_best_ratio: float = field(default=0.0, metadata={"help": "share of the smallest losses left out"})
    drop_best_after: int = field(default=0, metadata={"help": "updates before drop_best_ratio acts"})

    def __post_init__(self) -> None:
        for name, upper in (
            ("label_smoothing", 1.0),
            ("drop_worst_ratio", 1.0),
            ("drop_best_ratio", 1.0),
        ):
            if not 0.0 <= getattr(self, name) < upper:
                raise ConfigError(f"{name} {getattr(self, name)}: expected 0 <= {name} < {upper:g}")
        if not 0.0 < self.log_end <= 1.0:
            raise ConfigError(f"log_end {self.log_end}: expected 0 < log_end <= 1")
        if self.ignore_prefix_size < 0:
            raise ConfigError(f"ignore_prefix_size {self.ignore_prefix_size}: expected 0 or more")
        parse_range(self.constraint_range)


BASELINES = ("others", "greedy", "none")


@dataclass(frozen=True)
class PolicyOptions:
    """Options that all self-critical criterions share; how to generate is the task's ``scst_args``."""

    sentence_avg: bool = field(default=False, metadata={"help": "divide by sequences, not by tokens"})
    constraint_range: str | None = field(
        default=None, metadata={"help": "'start,end': generate and score only these tokens"}
    )
    ignore_prefix_size: int = field(default=0, metadata={"help": "positions left out at the start"})
    scst_baseline: str | None = field(
        default=None,
        metadata={
            "help": "taken off each reward: others (mean of the row's other samples), greedy (reward of the "
            "most probable output) or none; default: the criterion's own"
        },
    )
    scst_samples: int | None = field(
        default=None,
        metadata={"help": "outputs of a row that are rewarded, best first; default: the criterion's own"},
    )
    scst_patience: int = field(
        default=200,
        metadata={"help": "stop when so many updates on end have no reward or no advantage, 0: never"},
    )

    def __post_init__(self) -> None:
        if self.scst_baseline not in (None, *BASELINES):
            raise ConfigError(
                f"scst_baseline '{self.scst_baseline}' is not one of {', '.join(BASELINES)}."
                + nearest(str(self.scst_baseline), BASELINES)
            )
        for name, least in (("ignore_prefix_size", 0), ("scst_samples", 1), ("scst_patience", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} {value}: expected {least} or more")
        parse_range(self.constraint_range)


@dataclass
class LossOutput:
    """What a loss returns. ``loss`` and ``nll_loss`` are sums, to be divided by ``sample_size``.

    loss: () differentiable; nll_loss: () detached, without smoothing, bonus and divergence;
    ntokens: scored target tokens before anything was left out; sample_size: kept tokens, or sentences;
    rows: (B, U) float32, the loss of each position before dropping, 0 where not scored, detached;
    n_correct, total: right (where the logits are) and counted positions when ``report_accuracy`` is set.
    """

    loss: Tensor
    nll_loss: Tensor
    ntokens: int
    sample_size: int
    nsentences: int
    rows: Tensor | None = None
    n_correct: Tensor | int | None = None
    total: int | None = None
