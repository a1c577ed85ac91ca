"""What a predicted box is worth: overlap with the target, for targets of chosen sizes (rewarded soups)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unival.errors import ConfigError, nearest
from unival.losses import PolicyOptions
from unival.metrics.grounding import Box, box_iou, is_hit


@dataclass(frozen=True)
class GroundingOptions(PolicyOptions):
    """Options of self-critical grounding beside those of :class:`BoxReward`."""

    lambda_reinforce: float = field(
        default=0.0,
        metadata={
            "help": "above 0: the loss is cross entropy + this * policy loss, otherwise policy loss alone"
        },
    )
    reinforce_prefix: str = field(
        default="target",
        metadata={
            "help": "what the cross entropy of lambda_reinforce is conditioned on: target, or generated (the "
            "reference's: the target's tokens behind the generated box, without eos)"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_reinforce < 0:
            raise ConfigError(f"lambda_reinforce {self.lambda_reinforce}: expected 0 or more")
        if self.reinforce_prefix not in ("target", "generated"):
            raise ConfigError(
                f"reinforce_prefix '{self.reinforce_prefix}' is not one of target, generated."
                + nearest(self.reinforce_prefix, ("target", "generated"))
            )


@dataclass(frozen=True)
class WeightedOptions(PolicyOptions):
    """Options of reward-weighted supervision beside those of :class:`BoxReward` and ``LossOptions``."""

    logprob: bool = field(default=False, metadata={"help": "plain likelihood: no label smoothing"})
    reinforce: bool = field(
        default=False,
        metadata={"help": "with logprob: lambda_reinforce * weighted loss + the loss without weights"},
    )
    lambda_reinforce: float = field(
        default=0.0, metadata={"help": "weight of the rewarded loss in reinforce"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reinforce and not self.logprob:
            raise ConfigError("--reinforce acts on likelihoods: give --logprob too")
        if self.lambda_reinforce < 0 or bool(self.lambda_reinforce) != self.reinforce:
            raise ConfigError(
                f"lambda_reinforce {self.lambda_reinforce}: it is the weight (above 0) that --reinforce needs and "
                "nothing else uses. To reward the model's own boxes take --criterion "
                "refcoco_scst_reward_criterion"
            )


@dataclass(frozen=True)
class BoxReward:
    """1 for a box that hits a target of a wanted size, else 0.

    Sizes are areas of the TARGET in squared pixels of the original image. Without limits all sizes count;
    with them these do (reference behaviour, whose six scripts use 30000 and 100000):

    =================  ==============  =======================
    limits given       alone           with ``medium_area``
    =================  ==============  =======================
    max_area_size      small           medium and large
    min_area_size      large           small and medium
    both               small or large  medium
    =================  ==============  =======================

    Small is below ``max_area_size``, large above ``min_area_size``, medium everything else, so that each
    target is of one size, as :func:`unival.metrics.box_accuracy` has it (the reference's medium leaves out
    targets exactly at a limit). Overlap is compared with ``acc_thresh`` as that metric does.
    """

    acc_thresh: float | None = field(
        default=None, metadata={"help": "IoU from which a box is rewarded; without it the reward is the IoU"}
    )
    metric: str = field(default="acc", metadata={"help": "what is rewarded: acc, the hit of the box"})
    max_area_size: float | None = field(
        default=None, metadata={"help": "reward targets below this area, pixels squared"}
    )
    min_area_size: float | None = field(
        default=None, metadata={"help": "reward targets above this area, pixels squared"}
    )
    medium_area: bool = field(
        default=False,
        metadata={"help": "reward the sizes that the limits alone would leave out or border on"},
    )
    pos_reward: float | None = field(default=None, metadata={"help": "replaces every positive reward"})
    neg_reward: float | None = field(default=None, metadata={"help": "replaces every reward of zero"})

    def __post_init__(self) -> None:
        if self.acc_thresh is not None and not 0 < self.acc_thresh <= 1:
            raise ConfigError(f"acc_thresh is an overlap in (0, 1], got {self.acc_thresh}")
        if self.metric != "acc":
            raise ConfigError(
                f"metric '{self.metric}': give acc. The mean average precision of one box per row is its hit, "
                "which acc rewards"
            )
        if self.medium_area and self.max_area_size is None and self.min_area_size is None:
            raise ConfigError("medium_area needs a limit: give max_area_size, min_area_size or both")
        if None not in (self.max_area_size, self.min_area_size) and self.max_area_size > self.min_area_size:  # type: ignore[operator]
            raise ConfigError(
                f"max_area_size {self.max_area_size:g} (end of the small targets) is above min_area_size "
                f"{self.min_area_size:g} (begin of the large ones): exchange them"
            )

    def sizes(self) -> tuple[str, ...]:
        """Sizes of targets that are rewarded."""
        small, large = self.max_area_size is not None, self.min_area_size is not None
        if not small and not large:
            return ("small", "medium", "large")
        if self.medium_area:
            return ("medium",) if small and large else ("medium", "large") if small else ("small", "medium")
        return ("small",) * small + ("large",) * large

    def size_of(self, target: Box) -> str:
        """Size of a target; without a limit there is no target of that size."""
        area = (target[2] - target[0]) * (target[3] - target[1])
        if self.max_area_size is not None and area < self.max_area_size:
            return "small"
        if self.min_area_size is not None and area > self.min_area_size:
            return "large"
        return "medium"

    def of(self, box: Box | None, target: Box) -> float:
        """Reward of one box; None (not a box) hits nothing."""
        reward = 0.0
        if box is not None and self.size_of(target) in self.sizes():
            overlap = box_iou(box, target)
            reward = (
                overlap if self.acc_thresh is None else float(is_hit(box, target, self.acc_thresh, overlap))
            )
        chosen = self.pos_reward if reward > 0 else self.neg_reward
        return reward if chosen is None else chosen

    def __call__(self, boxes: Sequence[Sequence[Any]], targets: Sequence[Box]) -> Tensor:
        """Return (B, K) float32 rewards of K boxes (x0, y0, x1, y1) per row, in the targets' pixels."""
        rows = [[self.of(box, target) for box in found] for found, target in zip(boxes, targets, strict=True)]
        return torch.tensor(rows, dtype=torch.float32)
