"""Grounding from rewards for the model's own boxes: hits on targets of chosen sizes (rewarded soups)."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from torch import Tensor

from unival.core import options as cli_options
from unival.criterions.label_smoothed import LabelSmoothedCrossEntropy
from unival.criterions.scst import SelfCriticalCriterion
from unival.errors import ConfigError
from unival.losses import LossOptions, LossOutput, token_log_probs
from unival.rewards import BoxReward, GroundingOptions, WeightedOptions
from unival.rewards.rollout import Rollout, select_rows, shifted


class BoxCriterion(SelfCriticalCriterion):
    """A self-critical criterion whose reward is :class:`unival.rewards.BoxReward` of the best box."""

    specs = ("grounding",)
    baseline = "none"
    samples = 1
    remedy = (
        "start from a checkpoint that finds boxes, lower --acc-thresh (or leave it out: the reward is then the "
        "overlap), and see that the table has targets of the sizes that --max-area-size, --min-area-size and "
        "--medium-area choose"
    )

    def __init__(self, task: Any, options: Any, reward: BoxReward) -> None:
        super().__init__(task, options)
        self.reward = reward

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """One flag per option of the criterion and of the reward."""
        super().add_args(parser)
        cli_options.add_arguments(parser, BoxReward)

    @classmethod
    def build_criterion(cls, cfg: Namespace, task: Any) -> BoxCriterion:
        options = cli_options.from_namespace(cfg, cls.options_class)
        return cls(task, options, cli_options.from_namespace(cfg, BoxReward))

    def rewards(self, sample: dict[str, Any], tokens: Tensor, outputs: list[list[Any]]) -> Tensor:
        return self.reward(outputs, sample["references"])


@register_criterion("refcoco_scst_reward_criterion")
class GroundingCriterion(BoxCriterion):
    """Policy gradient on generated boxes; without a baseline, as in the reference, unless asked for.

    With ``lambda_reinforce`` the loss is cross entropy + lambda * policy loss. The targets then run through
    the model beside the outputs, in one forward pass. With K outputs per row the cross entropy counts K
    times, so that the two means are weighed whatever K.
    """

    options_class = GroundingOptions

    def loss(
        self, model: Any, sample: dict[str, Any], rollout: Rollout, advantage: Tensor, update_num: int
    ) -> LossOutput:
        weight = self.options.lambda_reinforce
        if not weight:
            return super().loss(model, sample, rollout, advantage, update_num)
        pad, target = self.task.vocabulary.pad, sample["target"]
        rows, tokens = self.taught(rollout)
        generated, length = tokens.shape
        inputs = shifted(tokens, self.task.vocabulary.bos)
        own = self.options.reinforce_prefix == "target"
        if own:
            rows = torch.cat([rows, torch.arange(len(target), device=rows.device)])
            inputs = _stacked(inputs, sample["net_input"]["prev_output_tokens"], pad)
        logits, _ = model(**select_rows(sample["net_input"], rows, inputs))
        output = self.policy_loss(logits[:generated, :length], rollout, advantage)
        if own:
            entropy = -token_log_probs(logits[generated:, : target.size(1)], target, pad).sum()
            entropy = entropy * rollout.tokens.size(1)
        else:
            entropy = -token_log_probs(logits, self._behind_generated(target, rows, tokens), pad).sum()
        return replace(output, loss=entropy + weight * output.loss)

    def _behind_generated(self, target: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """Targets without eos, one per output, as long as the outputs (N, U)."""
        vocabulary = self.task.vocabulary
        answers = torch.full_like(tokens, vocabulary.pad)
        common = min(tokens.size(1), target.size(1))
        answers[:, :common] = target[rows, :common]
        return answers.masked_fill(answers == vocabulary.eos, vocabulary.pad)


def _stacked(one: Tensor, other: Tensor, pad: int) -> Tensor:
    """Rows of both, padded to the longer length."""
    width = max(one.size(1), other.size(1))
    return torch.cat([F.pad(x, (0, width - x.size(1)), value=pad) for x in (one, other)])


@register_criterion("adjust_label_smoothed_cross_entropy_scst")
class RewardWeightedCrossEntropy(BoxCriterion):
    """Cross entropy of the targets, each row weighed by the reward of the box that the model generates for it.

    ``logprob``: without label smoothing; ``logprob`` and ``reinforce``: lambda_reinforce * weighted +
    unweighted loss (reference behaviour; its variant without lambda, which makes the most probable tokens
    more probable whatever they are, is refused). All options of the cross entropy act.
    """

    options_class = WeightedOptions

    @classmethod
    def add_args(cls, parser: Any) -> None:
        super().add_args(parser)
        cli_options.add_arguments(parser, LossOptions, skip=("encouraging", "log_end"))

    @classmethod
    def build_criterion(cls, cfg: Namespace, task: Any) -> BoxCriterion:
        criterion = super().build_criterion(cfg, task)
        if criterion.kept != 1:
            raise ConfigError(f"scst_samples {criterion.kept}: a target has one weight, leave it out")
        options = cli_options.from_namespace(cfg, LossOptions)
        if criterion.options.logprob:
            options = replace(options, label_smoothing=0.0)
        criterion.supervised = LabelSmoothedCrossEntropy(task, options)
        return criterion

    def loss(
        self, model: Any, sample: dict[str, Any], rollout: Rollout, advantage: Tensor, update_num: int
    ) -> LossOutput:
        weights = advantage[:, 0]
        if self.options.reinforce:
            weights = 1 + self.options.lambda_reinforce * weights
        if sample["conf"] is not None:
            weights = weights * sample["conf"].reshape(-1)
        return self.supervised.loss(model, {**sample, "conf": weights.view(-1, 1, 1)}, update_num)
