"""The losses of rows as one reads them in the papers: the twin of :mod:`unival.losses.rows`, by autograd.

Not used in training (it keeps several tensors of the logits' size); the tests hold both to each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unival.losses.rows import MIN_COMPLEMENT, Terms


def plain_row_losses(logits: Tensor, terms: Terms) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Map logits (rows, V) and Terms to (loss, nll, bonus, divergence) of each scored row, (N,) each."""
    eps, log_end = terms.options.label_smoothing, terms.options.log_end
    allowed = terms.allowed(slice(None))
    allowed = torch.ones_like(logits[terms.rows], dtype=torch.bool) if allowed is None else allowed
    allowed = allowed.expand(len(terms.rows), -1)
    classes = allowed.sum(-1)

    scores = logits[terms.rows].to(torch.promote_types(logits.dtype, torch.float32))
    log_p = scores.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    if terms.confidence is not None:
        log_p = (log_p * terms.confidence.unsqueeze(1)).masked_fill(~allowed, -torch.inf)
    nll = -log_p.gather(1, terms.target.unsqueeze(1)).squeeze(1)

    # every wrong class gets the mass eps / (classes - 1), the right one what is left of 1
    mass = eps / (classes.to(log_p) - 1 + (0.0 if terms.mask is None else 1e-6))
    smoothed = (1 - eps - mass) * nll - mass * log_p.masked_fill(~allowed, 0.0).sum(-1)

    bonus = torch.zeros_like(smoothed)
    if terms.options.encouraging:
        p = log_p.exp()
        gain = (1 - p).clamp_min(MIN_COMPLEMENT).log()
        if log_end < 1:  # above log_end the logarithm goes on along its tangent
            end = torch.tensor(1 - log_end)
            gain = torch.where(p > log_end, end.log() - (p - log_end) / end, gain)
        bonus = (1 - eps) * gain.gather(1, terms.target.unsqueeze(1)).squeeze(1) + eps * gain.mean(-1)

    divergence = torch.zeros_like(smoothed)
    if terms.paired:
        first, second = log_p.masked_fill(~allowed, 0.0).chunk(2)
        p, q = (x.exp() for x in log_p.chunk(2))
        pairs = ((p - q) * (first - second)).sum(-1) / 2  # (KL(p||q) + KL(q||p)) / 2
        divergence = torch.cat([pairs, torch.zeros_like(pairs)])
    return smoothed, nll.detach(), bonus, divergence
