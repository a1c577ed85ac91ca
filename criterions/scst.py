"""Self-critical training: generate, reward, and make rewarded outputs more probable."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from argparse import Namespace
from typing import Any, ClassVar

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from torch import Tensor

from unival.core import options as cli_options
from unival.criterions.label_smoothed import LabelSmoothedCrossEntropy
from unival.errors import ConfigError
from unival.generate import parse_range
from unival.losses import LossOptions, LossOutput, PolicyOptions, mean_of_others, policy_loss
from unival.predict.inference import Inference
from unival.rewards import RewardGuard, RewardSums
from unival.rewards.rollout import Rollout, roll_out, select_rows, shifted
from unival.tasks.safety import unwrap


class SelfCriticalCriterion(FairseqCriterion, ABC):
    """Policy gradient on the model's own outputs; subclasses say what an output is worth.

    One step: K outputs per row are generated in evaluation mode (``--scst-args``: beam search, or sampling
    whose draws depend on seed, update and row alone), rewarded, and run through the model in training mode.
    Loss: minus the sum over tokens of (reward - baseline) * log-probability; sample size: those tokens.
    In validation the loss is the cross entropy of the targets; the task's metric judges the outputs.

    Class attributes: ``specs``, names of the task descriptions it serves; ``options_class``; ``baseline`` and
    ``samples``, the defaults of ``scst_baseline`` and ``scst_samples`` (None: all outputs); ``remedy``, what to
    do about rewards that stay zero.
    """

    specs: ClassVar[tuple[str, ...]]
    options_class: ClassVar[type[PolicyOptions]] = PolicyOptions
    baseline: ClassVar[str] = "others"
    samples: ClassVar[int | None] = None
    remedy: ClassVar[str] = "start from a checkpoint that was trained with cross entropy"

    def __init__(self, task: Any, options: Any) -> None:
        super().__init__(task)
        if task.spec.name not in self.specs:
            raise ConfigError(
                f"the criterion rewards {' and '.join(self.specs)}; task '{task.spec.name}' is none of them"
            )
        self.options = options
        self.supervised = LabelSmoothedCrossEntropy(task, LossOptions(sentence_avg=options.sentence_avg))
        self.baseline_kind = options.scst_baseline or self.baseline
        self.kept = options.scst_samples or self.samples
        settings = {"seed": task.options.seed, **(task.cfg.scst_args or {})}
        if options.constraint_range:
            settings["constraint_range"] = options.constraint_range
        self.inference = self._inference(settings)
        single = {"beam": 1, "sampling": False, "sampling_topk": -1, "sampling_topp": -1}
        self.greedy = self._inference({**settings, **single})
        self.guard = RewardGuard(options.scst_patience, self.remedy)

    def _inference(self, settings: dict[str, Any]) -> Inference:
        mode = "open" if self.task.cfg.val_inference_type == "open" else "beamsearch"
        return Inference(self.task.spec, self.task.options, self.task.vocabulary, settings, mode)

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """One flag per option."""
        cli_options.add_arguments(parser, cls.options_class)

    @classmethod
    def build_criterion(cls, cfg: Namespace, task: Any) -> SelfCriticalCriterion:
        return cls(task, cli_options.from_namespace(cfg, cls.options_class))

    @abstractmethod
    def rewards(self, sample: dict[str, Any], tokens: Tensor, outputs: list[list[Any]]) -> Tensor:
        """Return float rewards (B, K) of generated outputs.

        sample: the collated batch; tokens: (B, K, U) int64, eos and forced prefix included, padded;
        outputs: K per row as the task decodes them, None where a row has fewer (its reward is not used).
        """

    def forward(
        self, model: Any, sample: dict[str, Any], update_num: int = 0, reduce: bool = True
    ) -> tuple[Tensor, Any, dict[str, Any]]:
        """Return (loss sum, sample size, statistics) of a batch."""
        if not model.training:
            output = self.supervised.loss(model, sample, update_num)
            return output.loss, output.sample_size, self._log(output, RewardSums())
        rollout = self._roll_out(model, sample, update_num, self.inference)
        rewards = self._rewards(sample, rollout)
        advantage = rewards - self._baseline(model, sample, rollout, rewards, update_num)
        advantage = advantage.masked_fill(~rollout.present, 0.0)
        sums = RewardSums.of(rewards, advantage, rollout.present)
        self.guard.see(update_num, RewardSums() if self.task.dummy else sums)
        output = self.loss(model, sample, rollout, advantage, update_num)
        return output.loss, output.sample_size, self._log(output, sums)

    def loss(
        self, model: Any, sample: dict[str, Any], rollout: Rollout, advantage: Tensor, update_num: int
    ) -> LossOutput:
        """Run the outputs through the model and weigh their log-probabilities; advantage: (B, K)."""
        rows, tokens = self.taught(rollout)
        inputs = select_rows(sample["net_input"], rows, shifted(tokens, self.task.vocabulary.bos))
        logits, _ = model(**inputs)
        return self.policy_loss(logits, rollout, advantage)

    @staticmethod
    def taught(rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return (row of the batch (B * K,), tokens (B * K, U)) of all outputs."""
        batch, count, length = rollout.tokens.shape
        rows = torch.arange(batch, device=rollout.tokens.device).repeat_interleave(count)
        return rows, rollout.tokens.view(-1, length)

    def policy_loss(self, logits: Tensor, rollout: Rollout, advantage: Tensor) -> LossOutput:
        """The policy loss of logits (B * K, U, V), under the range that the outputs were generated in."""
        constraint, given = self.inference.constraint, self.inference.settings.constraint_range
        return policy_loss(
            logits,
            rollout.scored.view(logits.shape[:2]),
            advantage.reshape(-1),
            self.task.vocabulary.pad,
            limits=parse_range(given) or (constraint if isinstance(constraint, tuple) else None),
            sentence_avg=self.options.sentence_avg,
        )

    def _roll_out(self, model: Any, sample: dict[str, Any], update_num: int, inference: Inference) -> Rollout:
        keys = [zlib.crc32(f"{update_num} {name}".encode()) for name in sample["id"]]
        ignored = self.options.ignore_prefix_size
        return roll_out(unwrap(model), inference, sample, keys, self.kept, ignored)

    def _rewards(self, sample: dict[str, Any], rollout: Rollout) -> Tensor:
        rewards = self.rewards(sample, rollout.tokens, rollout.outputs)
        rewards = rewards.to(device=rollout.tokens.device, dtype=torch.float32)
        return rewards.masked_fill(~rollout.present, 0.0)

    def _baseline(
        self, model: Any, sample: dict[str, Any], rollout: Rollout, rewards: Tensor, update_num: int
    ) -> Tensor:
        """What is taken off the rewards, (B, K) or (B, 1)."""
        if self.baseline_kind == "none":
            return torch.zeros_like(rewards)
        if self.baseline_kind == "others":
            return mean_of_others(rewards, rollout.present)
        best = self._roll_out(model, sample, update_num, self.greedy)
        return self._rewards(sample, best)

    @staticmethod
    def empty_log() -> dict[str, float]:
        """Statistics of a step without rows."""
        return {**LabelSmoothedCrossEntropy.empty_log(), **RewardSums().log()}

    @staticmethod
    def _log(output: LossOutput, sums: RewardSums) -> dict[str, Any]:
        return {**LabelSmoothedCrossEntropy.log_of(output), **sums.log()}

    @classmethod
    def reduce_metrics(cls, logging_outputs: Any) -> None:
        """Log means over all ranks, and of the rewards also spread and extremes.

        ``zero_advantage`` is the share of rows whose outputs teach nothing.
        """
        LabelSmoothedCrossEntropy.reduce_metrics(logging_outputs)
        sums = RewardSums.joined(logging_outputs)
        for name, value in sums.statistics().items():
            metrics.log_scalar(name, value, sums.samples, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
