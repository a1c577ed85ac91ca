"""The loss of each row of (rows, V) logits and its gradient, computed in chunks of rows.

Float32 whatever the type of the logits (float64 stays float64). Beside the logits and their gradient no
third tensor of (rows, V) lives: the backward pass recomputes the softmax chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unival.core.transfers import to_device, to_host
from unival.losses.options import LossOptions

CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**24}  # elements of one (rows, V) chunk; a few such live at once
MIN_COMPLEMENT = 1e-5  # reference value: log(1 - p) of the bonus is cut off below this


class AllowedTokens:
    """Allowed tokens of each target position as lists, made dense only for the rows of one chunk.

    Same meaning as a dense (B, U, V) mask at a tiny part of its memory. ``lists[b][u]`` holds the token
    numbers allowed at position u of row b; positions beyond the end of a list allow nothing. A row that is
    None is not constrained.
    """

    def __init__(self, lists: Sequence[Sequence[Sequence[int]] | None], length: int, vocab_size: int) -> None:
        self.shape = (len(lists), length, vocab_size)
        self.free = np.array([row is None for row in lists], dtype=bool)
        counts: list[int] = []
        tokens: list[int] = []
        for row in lists:
            if row is None:
                counts.extend([0] * length)
                continue
            for u in range(length):
                allowed = row[u] if u < len(row) else ()
                counts.append(len(allowed))
                tokens.extend(allowed)
        self.tokens = np.array(tokens, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)

    def dense(self, rows: Tensor, host: np.ndarray | None = None) -> Tensor:
        """Return the (len(rows), V) bool mask of flat positions ``rows`` on their device; ``host``: the same numbers
        on the host, which are asked for where they are not given."""
        host = (to_host(rows) if host is None else host) % (self.shape[0] * self.shape[1])
        counts = self.starts[host + 1] - self.starts[host]
        row = np.repeat(np.arange(len(host)), counts)
        first = np.repeat(self.starts[host] - (np.cumsum(counts) - counts), counts)
        tokens = self.tokens[first + np.arange(len(row))]
        # only numbers of allowed tokens go to the device, not a mask as large as the logits
        mask = torch.zeros(len(host), self.shape[2], dtype=torch.bool, device=rows.device)
        at = to_device(np.stack([row, tokens]), rows.device)
        mask.index_put_((at[0], at[1]), mask.new_ones(()))  # a number of the host would be copied
        return mask.logical_or_(to_device(self.free[host // self.shape[1]], rows.device).unsqueeze(1))


@dataclass
class Terms:
    """Everything but the logits that the loss of a row depends on. Flat rows are b * U + u."""

    target: Tensor  # (N,) of the scored rows
    rows: Tensor  # (N,) flat row numbers
    confidence: Tensor | None  # (N,)
    mask: Tensor | AllowedTokens | None  # dense (B*U, V), or (V,) for a range
    options: LossOptions
    paired: bool  # the second half of ``rows`` is the second R-Drop pass
    host: np.ndarray | None = None  # ``rows`` on the host, where they are known there

    def allowed(self, part: slice) -> Tensor | None:
        rows = self.rows[part]
        if self.mask is None:
            return None
        if isinstance(self.mask, AllowedTokens):
            return self.mask.dense(rows, None if self.host is None else self.host[part])
        return self.mask if self.mask.dim() == 1 else self.mask[rows % len(self.mask)]

    def log_probs(self, logits: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (log-probabilities, the same times the confidence, allowed) of some rows."""
        scores = logits[self.rows[part]]
        scores = scores if scores.dtype == torch.float64 else scores.float()
        allowed = self.allowed(part)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        plain = torch.log_softmax(scores, dim=-1)
        if self.confidence is None:
            return plain, plain, allowed
        weighted = plain * self.confidence[part].to(plain).unsqueeze(1)
        if allowed is not None:
            weighted.masked_fill_(~allowed, -torch.inf)
        return plain, weighted, allowed

    def smoothing(self, allowed: Tensor | None, like: Tensor) -> Tensor:
        """Smoothing mass of one class, (n, 1) or (1, 1); over the allowed classes under a constraint."""
        eps = self.options.label_smoothing
        if allowed is None:
            return like.new_full((1, 1), eps / (like.size(1) - 1))
        return (eps / (allowed.sum(-1, keepdim=True) - 1 + 1e-6)).view(-1, 1).to(like)

    def chunks(self, logits: Tensor) -> list[slice]:
        budget = CHUNK_ELEMENTS.get(logits.device.type, 2**22)
        size = max(1, budget // logits.size(1))
        return [slice(i, min(i + size, len(self.rows))) for i in range(0, len(self.rows), size)]

    def partners(self) -> Terms:
        """The same rows, each in the place of its pair's other one."""
        half = len(self.rows) // 2
        return replace(
            self,
            target=self.target.roll(half),
            rows=self.rows.roll(half),
            confidence=None if self.confidence is None else self.confidence.roll(half),
            host=None if self.host is None else np.roll(self.host, half),
        )


def _bonus(p: Tensor, log_end: float) -> Tensor:
    """log(1 - p), continued by its tangent above ``log_end``."""
    bonus = (1 - p).clamp_min(MIN_COMPLEMENT).log()
    if log_end < 1:
        end = p.new_full((), 1 - log_end)
        bonus = torch.where(p > log_end, end.log() - (p - log_end) / end, bonus)
    return bonus


def _bonus_slope_times_p(p: Tensor, log_end: float) -> Tensor:
    slope = torch.where(1 - p >= MIN_COMPLEMENT, -1 / (1 - p).clamp_min(MIN_COMPLEMENT), 0.0)
    if log_end < 1:
        slope = torch.where(p > log_end, -1 / (1 - log_end), slope)
    return slope * p


def _gap(log_probs: Tensor, other: Tensor, allowed: Tensor | None) -> Tensor:
    gap = log_probs - other
    return gap if allowed is None else gap.masked_fill_(~allowed, 0.0)


class RowLosses(torch.autograd.Function):
    """Map logits (rows, V) and Terms to (loss, nll, bonus, divergence) of each scored row, (N,) each.

    Without confidences and options, with p = softmax(logits): loss is the label-smoothed cross entropy, bonus
    the encouraging term, divergence (KL(p||q) + KL(q||p)) / 2 of a pair, put on the row of its first pass.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, terms: Terms) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        eps, count = terms.options.label_smoothing, len(terms.rows)
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        smoothed, nll, bonus, divergence = (logits.new_zeros(count, dtype=dtype) for _ in range(4))
        if terms.paired:
            partners = terms.partners()
        for part in terms.chunks(logits):
            _, log_probs, allowed = terms.log_probs(logits, part)
            target = terms.target[part].unsqueeze(1)
            chosen = -log_probs.gather(1, target)
            nll[part] = chosen.squeeze(1)
            mass = terms.smoothing(allowed, log_probs)
            finite = log_probs if allowed is None else log_probs.masked_fill(~allowed, 0.0)
            rest = mass * finite.sum(-1, keepdim=True)
            smoothed[part] = ((1 - eps - mass) * chosen - rest).squeeze(1)
            del finite
            if terms.options.encouraging:
                gain = _bonus(log_probs.exp(), terms.options.log_end)
                bonus[part] = (1 - eps) * gain.gather(1, target).squeeze(1) + eps / gain.size(1) * gain.sum(
                    -1
                )
                del gain
            if terms.paired and part.start < count // 2:
                _, other, _ = partners.log_probs(logits, part)
                gap = _gap(log_probs, other, allowed)
                divergence[part] = (log_probs.exp_() - other.exp_()).mul_(gap).sum(-1) / 2
        if terms.paired:
            divergence[count // 2 :] = 0.0  # each pair counts once
        ctx.terms = terms
        ctx.save_for_backward(logits)
        ctx.mark_non_differentiable(nll)  # it is reported, never trained on
        return smoothed, nll, bonus, divergence

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_smoothed: Tensor, d_nll: Tensor, d_bonus: Tensor, d_divergence: Tensor
    ) -> tuple[Tensor, None]:
        (logits,) = ctx.saved_tensors
        terms: Terms = ctx.terms
        eps, half = terms.options.label_smoothing, len(terms.rows) // 2
        if terms.paired:
            partners, of_pairs = terms.partners(), d_divergence[:half].repeat(2)
        grad = torch.zeros_like(logits)
        for part in terms.chunks(logits):
            plain, log_probs, allowed = terms.log_probs(logits, part)
            target = terms.target[part].unsqueeze(1)
            # First g = d loss / d log_probs, then through the confidence and the softmax.
            mass = terms.smoothing(allowed, log_probs)
            scale = d_smoothed[part].unsqueeze(1)
            # loss = (1 - eps - mass) (-log p_target) - mass sum(log p): -mass everywhere, eps - 1 at the target
            g = (-mass * scale).expand_as(log_probs).contiguous()
            g.scatter_add_(1, target, (eps + mass - 1) * scale)
            if terms.options.encouraging:
                slope = _bonus_slope_times_p(log_probs.exp(), terms.options.log_end)
                scale = d_bonus[part].unsqueeze(1)
                g.scatter_add_(1, target, (1 - eps) * scale * slope.gather(1, target))
                g += slope.mul_(eps / slope.size(1) * scale)
                del slope
            if terms.paired:
                _, other, _ = partners.log_probs(logits, part)
                p, gap = log_probs.exp(), _gap(log_probs, other, allowed)
                scale = of_pairs[part].unsqueeze(1) / 2
                # of (p - q) (log p - log q) by log p: p (log p - log q) + p - q
                g += gap.mul_(p).add_(p).sub_(other.exp_()).mul_(scale)
                del p, gap, other
            if allowed is not None:
                g.masked_fill_(~allowed, 0.0)
            g -= plain.exp_().mul_(
                g.sum(-1, keepdim=True)
            )  # through the softmax: a shift of all logits changes nothing
            if terms.confidence is not None:
                g *= terms.confidence[part].to(g).unsqueeze(1)
            grad[terms.rows[part]] = g.to(grad.dtype)
        return grad, None
