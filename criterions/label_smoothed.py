"""The two criterions of pretraining and finetuning, as thin callers of the pure losses."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace
from typing import Any

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics

from unival.core import options as cli_options
from unival.core.modalities import KEPT_KEYS, KEYS
from unival.errors import ConfigError
from unival.losses import AllowedTokens, LossOptions, LossOutput, combine, label_smoothed_loss

_LOGGED = (
    "loss", "nll_loss", "ntokens", "nsentences", "sample_size", "n_correct", "total",
    "loss_v1", "loss_v2", "sample_size_v1", "sample_size_v2",
)  # fmt: skip

_SLOTS = {"image": "v1", "video": "v2"}  # the reference's names of the two sub-batches


@register_criterion("adjust_label_smoothed_cross_entropy")
class LabelSmoothedCrossEntropy(FairseqCriterion):
    """Label-smoothed cross entropy with answer constraints, drop-worst and R-Drop.

    A list of batches (image and video groups) gives L1/n1 + L2/n2 with sample size 1, so that the groups
    weigh the same whatever their token counts (reference behaviour).
    """

    encouraging = False

    def __init__(self, task: Any, options: LossOptions) -> None:
        super().__init__(task)
        self.options = options
        self.pad = task.vocabulary.pad
        self.eos = task.vocabulary.eos

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """One flag per loss option."""
        cli_options.add_arguments(parser, LossOptions, skip=("encouraging",))

    @classmethod
    def build_criterion(cls, cfg: Namespace, task: Any) -> LabelSmoothedCrossEntropy:
        if task.cfg.scst or task.cfg.scst_args is not None:
            raise ConfigError(
                "--scst and --scst-args do nothing with cross entropy: choose a self-critical criterion "
                "(scst_reward_criterion, refcoco_scst_reward_criterion, clip_scst_reward_criterion), or leave them out"
            )
        options = cli_options.from_namespace(cfg, LossOptions)
        return cls(task, replace(options, encouraging=cls.encouraging))

    def forward(
        self, model: Any, sample: Any, update_num: int = 0, reduce: bool = True
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """Return (loss sum, sample size, statistics) of a batch, or of a list of batches."""
        if not isinstance(sample, list):
            output = self.loss(model, sample, update_num)
            return output.loss, output.sample_size, self.log_of(output)
        outputs = [self.loss(model, part, update_num) for part in sample]
        joined = combine(outputs)
        log = self.log_of(joined)
        for part, output in zip(sample, outputs, strict=True):
            slot = _SLOTS.get(part["group"])
            if slot:
                log[f"loss_{slot}"] = output.loss.detach()
                log[f"sample_size_{slot}"] = float(output.sample_size)
        return joined.loss, joined.sample_size, log

    def loss(self, model: Any, sample: dict[str, Any], update_num: int) -> LossOutput:
        """Forward one batch and compute its loss; R-Drop runs the batch twice."""
        net_input, target, conf = sample["net_input"], sample["target"], sample["conf"]
        allowed, facts = sample["allowed"], sample.get("facts")
        if self.options.use_rdrop:
            shared = "patch_rows" in net_input  # examples share media: both passes do too
            media = (*KEYS, *KEPT_KEYS)
            net_input = {k: v if shared and k in media else _twice(v) for k, v in net_input.items()}
            facts = None if facts is None else facts.twice()
        known = {} if facts is None else {"facts": facts}  # a batch made by hand has none
        logits, _ = model(**net_input, **known)
        masks = None
        if allowed is not None:
            masks = AllowedTokens(allowed, target.shape[1], logits.shape[-1])
        return label_smoothed_loss(
            logits,
            target,
            self.options,
            update_num=update_num,
            conf=conf,
            constraint_masks=masks,
            pad=self.pad,
            eos=self.eos,
            host_target=None if facts is None else facts.target,
        )

    @staticmethod
    def empty_log() -> dict[str, float]:
        """Statistics of a step without rows. All ranks log the same names and types, so that sums line up."""
        return dict.fromkeys(_LOGGED, 0.0)

    @classmethod
    def log_of(cls, output: LossOutput) -> dict[str, Any]:
        """Statistics of a step under the names that :meth:`reduce_metrics` reads. What the device counts stays there,
        for whoever asks for all of it at once (``unival.tasks.numbers``)."""
        names = ("ntokens", "nsentences", "sample_size", "total")
        log: dict[str, Any] = cls.empty_log() | {name: float(getattr(output, name) or 0) for name in names}
        if output.n_correct is not None:
            log["n_correct"] = output.n_correct
        return log | {"loss": output.loss.detach(), "nll_loss": output.nll_loss.detach()}

    @classmethod
    def reduce_metrics(cls, logging_outputs: Any) -> None:
        """Log means over all ranks: loss and nll in nats per token as the reference does."""

        def total(name: str) -> float:
            return float(sum(float(log.get(name, 0)) for log in logging_outputs))

        size = total("sample_size")
        metrics.log_scalar("loss", total("loss") / max(size, 1), size, round=3)
        metrics.log_scalar("nll_loss", total("nll_loss") / max(size, 1), size, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg, base=math.e))
        metrics.log_scalar("ntokens", total("ntokens"), 1, round=1)
        metrics.log_scalar("nsentences", total("nsentences"), 1, round=1)
        metrics.log_scalar("sample_size", size, 1, round=1)
        for number in (1, 2):
            part = total(f"sample_size_v{number}")
            if part:
                metrics.log_scalar(f"loss_v{number}", total(f"loss_v{number}") / part, part, round=3)
        counted = total("total")
        if counted:
            metrics.log_scalar("accuracy", total("n_correct") * 100.0 / counted, counted, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


@register_criterion("adjust_label_smoothed_encouraging_loss")
class EncouragingLoss(LabelSmoothedCrossEntropy):
    """The same with a bonus for confident correct tokens (Zhao et al., 2022)."""

    encouraging = True


def _twice(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, torch.Tensor) else value
