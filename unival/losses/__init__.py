"""Losses: label-smoothed cross entropy with its options, the encouraging bonus, R-Drop, policy gradients."""

from unival.losses.options import LossOptions, LossOutput, PolicyOptions
from unival.losses.policy import mean_of_others, policy_loss
from unival.losses.rows import AllowedTokens
from unival.losses.sequence import combine, label_smoothed_loss, token_log_probs

__all__ = [
    "AllowedTokens",
    "LossOptions",
    "LossOutput",
    "PolicyOptions",
    "combine",
    "label_smoothed_loss",
    "mean_of_others",
    "policy_loss",
    "token_log_probs",
]
