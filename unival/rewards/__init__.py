"""What an output is worth in self-critical training."""

from unival.rewards.boxes import BoxReward, GroundingOptions, WeightedOptions
from unival.rewards.captions import CaptionOptions, CaptionReward
from unival.rewards.guard import RewardGuard, RewardSums

__all__ = [
    "BoxReward",
    "CaptionOptions",
    "CaptionReward",
    "GroundingOptions",
    "RewardGuard",
    "RewardSums",
    "WeightedOptions",
]
