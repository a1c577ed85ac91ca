"""What an output is worth in self-critical training."""

from unival.rewards.guard import RewardGuard, RewardSums

__all__ = ["RewardGuard", "RewardSums"]
