"""Policy gradients: log-probabilities of generated tokens weighted by rewards.

Source: Rennie et al., "Self-critical sequence training for image captioning" (CVPR 2017); the mean of the
other samples as baseline is Luo, "A better variant of self-critical sequence training" (2020).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unival.core.transfers import to_host
from unival.errors import ConfigError
from unival.losses.options import LossOutput
from unival.losses.sequence import token_log_probs


def policy_loss(
    logits: Tensor,
    tokens: Tensor,
    rewards: Tensor | float,
    pad: int = 1,
    *,
    limits: tuple[int, int] | None = None,
    sentence_avg: bool = False,
    host_tokens: np.ndarray | None = None,
) -> LossOutput:
    """Return minus the sum of reward times log-probability over all scored tokens.

    logits: (N, U, V) of any float type; tokens: (N, U) int64 generated tokens, ``pad`` where not scored;
    rewards: (N,) one per sequence, a baseline already taken off, or one number for all; ``limits``: range of
    the vocabulary (and the four specials) that generation was restricted to, if it was. Computed in float32;
    beside the logits' gradient no second tensor of their size is made.
    ``host_tokens``: the tokens on the host, which are asked for where they are not given.
    ``nll_loss`` is minus the summed log-probability without rewards, ``rows`` the loss of each position.
    Raises ConfigError when shapes do not fit.
    """
    if tokens.shape != logits.shape[:2]:
        raise ConfigError(
            f"tokens of shape {tuple(tokens.shape)} do not fit logits of shape {tuple(logits.shape)}"
        )
    host_tokens = to_host(tokens) if host_tokens is None else host_tokens
    log_probs = token_log_probs(logits, tokens, pad, limits, host_tokens)
    weights = torch.as_tensor(rewards, dtype=log_probs.dtype, device=log_probs.device).reshape(-1)
    if len(weights) not in (1, len(log_probs)):
        raise ConfigError(f"{len(weights)} rewards do not fit {len(log_probs)} sequences")
    rows = -log_probs * weights.unsqueeze(1)
    scored = host_tokens != pad
    ntokens, sequences = int(scored.sum()), int(scored.any(1).sum())
    return LossOutput(
        loss=rows.sum(),
        nll_loss=-log_probs.detach().sum(),
        ntokens=ntokens,
        sample_size=sequences if sentence_avg else ntokens,
        nsentences=sequences,
        rows=rows.detach(),
    )


def mean_of_others(rewards: Tensor, present: Tensor) -> Tensor:
    """Return (B, K): for each sample the mean reward of the row's other samples.

    rewards: (B, K) float; present: (B, K) bool, False where a row has fewer samples. A sample without
    others gets its own reward, so that it teaches nothing.
    """
    kept = rewards.masked_fill(~present, 0.0)
    others = present.sum(1, keepdim=True) - 1
    mean = (kept.sum(1, keepdim=True) - kept) / others.clamp_min(1)
    return torch.where(others > 0, mean, rewards)
