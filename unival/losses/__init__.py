"""Losses: label-smoothed cross entropy with its options, the encouraging bonus, R-Drop, policy gradients."""

from unival.losses.options import LossOptions, LossOutput
from unival.losses.rows import AllowedTokens
from unival.losses.sequence import combine, label_smoothed_loss, scst_loss, token_log_probs

__all__ = [
    "AllowedTokens",
    "LossOptions",
    "LossOutput",
    "combine",
    "label_smoothed_loss",
    "scst_loss",
    "token_log_probs",
]
