"""Sequence losses as pure functions of logits and targets.

Sources: the reference behaviour of the two ``adjust_label_smoothed_*`` criterions; the encouraging bonus is
Zhao et al., "Well-classified examples are underestimated in classification with deep neural networks"
(AAAI 2022); R-Drop is Wu et al., "R-Drop: regularized dropout for neural networks" (NeurIPS 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unival.core.transfers import numbers_of, to_host
from unival.errors import ConfigError
from unival.generate.constraints import parse_range, range_mask
from unival.losses.options import LossOptions, LossOutput
from unival.losses.rows import AllowedTokens, RowLosses, Terms


def label_smoothed_loss(
    logits: Tensor,
    target: Tensor,
    options: LossOptions,
    *,
    update_num: int = 0,
    conf: Tensor | None = None,
    constraint_masks: Tensor | AllowedTokens | None = None,
    pad: int = 1,
    eos: int = 2,
    host_target: np.ndarray | None = None,
) -> LossOutput:
    """Return the summed, label-smoothed cross entropy with all options of both criterions.

    logits: (B, U, V) of any float type; target: (B, U) int64, ``pad`` where not scored;
    conf: (B,) or (B, 1, 1), multiplies the log-probabilities (answer confidences);
    constraint_masks: (B, U, V) bool, True where allowed, or AllowedTokens.
    With R-Drop the logits have 2B rows, both passes one after the other; target, conf and masks have B or 2B.
    ``update_num`` is compared with ``drop_worst_after`` and ``drop_best_after``. ``host_target``: the targets on the
    host, which are asked for where they are not given.

    Smoothing gives each wrong class eps / (V - 1), or eps / (allowed - 1 + 1e-6) under a constraint; the
    bonus gives each class eps / V and acts on exp(conf * log p) (both reference behaviour). The reference
    breaks the pairs of R-Drop when the bonus is on (it sorts the losses); here the pairs stay together.
    Raises ConfigError when shapes do not fit or a mask and a range are both given.
    """
    batch, length, vocab_size = logits.shape
    target = _both_passes(target, batch, options.use_rdrop)
    if target.shape != (batch, length):
        raise ConfigError(
            f"target of shape {tuple(target.shape)} does not fit logits of shape {tuple(logits.shape)}"
        )
    host_target = _on_host(target, host_target)
    ntokens = int((host_target != pad).sum())
    scored = _scored(host_target, options, pad, eos)
    host_rows = np.flatnonzero(scored)
    rows = numbers_of(_scored(target, options, pad, eos).reshape(-1), len(host_rows))
    confidence = None
    if conf is not None:
        confidence = _both_passes(conf.reshape(-1), batch, options.use_rdrop)[rows // length]
    mask = _mask(constraint_masks, options, logits)
    terms = Terms(target.reshape(-1)[rows], rows, confidence, mask, options, options.use_rdrop, host_rows)
    smoothed, nll, bonus, divergence = RowLosses.apply(logits.reshape(-1, vocab_size), terms)

    kept = _kept(smoothed.detach(), options, update_num)
    loss = _sum(smoothed, kept)
    if options.encouraging:
        loss = loss + _sum(bonus, kept)
    if options.use_rdrop:
        loss = loss + options.reg_alpha * _sum(divergence, kept)
    per_row = smoothed.new_zeros(batch * length).index_copy(0, rows, (smoothed + bonus).detach())
    output = LossOutput(
        loss=loss,
        nll_loss=_sum(nll, kept),
        ntokens=ntokens,
        sample_size=batch if options.sentence_avg else len(rows) if kept is None else len(kept),
        nsentences=batch,
        rows=per_row.view(batch, length),
    )
    if options.report_accuracy:
        guess = logits.detach().reshape(-1, vocab_size).argmax(-1)[rows]
        output.n_correct, output.total = guess.eq(terms.target).sum(), len(rows)
    return output


def combine(outputs: Sequence[LossOutput]) -> LossOutput:
    """Join sub-batches that weigh equally: loss = sum of loss_i / sample_size_i with sample_size 1.

    This is how the reference joins image and video sub-batches of one update; an empty one weighs nothing.
    """
    if not outputs:
        raise ConfigError("combine needs at least one loss")
    used = [o for o in outputs if o.sample_size] or list(outputs)[:1]
    return LossOutput(
        loss=torch.stack([o.loss / max(o.sample_size, 1) for o in used]).sum(),
        nll_loss=torch.stack([o.nll_loss / max(o.sample_size, 1) for o in used]).sum(),
        ntokens=sum(o.ntokens for o in outputs),
        sample_size=1,
        nsentences=sum(o.nsentences for o in outputs),
        n_correct=sum(0 if o.n_correct is None else o.n_correct for o in outputs),
        total=sum(o.total or 0 for o in outputs),
    )


def token_log_probs(
    logits: Tensor,
    target: Tensor,
    pad: int = 1,
    limits: tuple[int, int] | None = None,
    host_target: np.ndarray | None = None,
) -> Tensor:
    """Return (B, U) log-probabilities of ``target``, 0 at ``pad``; differentiable and memory-lean.

    logits: (B, U, V) of any float type; target: (B, U) int64; ``limits`` restricts the softmax to a range of
    the vocabulary and the four specials; ``host_target``: the targets on the host, which are asked for where they are
    not given. The result is float32 (float64 for float64).
    """
    count = int((_on_host(target, host_target) != pad).sum())
    rows = numbers_of(target.reshape(-1).ne(pad), count)
    mask = None if limits is None else range_mask(limits, logits.size(-1), logits.device)
    terms = Terms(target.reshape(-1)[rows], rows, None, mask, LossOptions(), paired=False)
    losses = RowLosses.apply(logits.reshape(-1, logits.size(-1)), terms)[0]
    return losses.new_zeros(target.numel()).index_copy(0, rows, -losses).view(target.shape)


def _on_host(target: Tensor, host_target: np.ndarray | None) -> np.ndarray:
    """Targets (B, U) on the host; those of one R-Drop pass repeated."""
    if host_target is None:
        return to_host(target)
    if host_target.shape == target.shape:
        return host_target
    if (2 * len(host_target), host_target.shape[1]) == target.shape:
        return np.concatenate([host_target, host_target])
    raise ConfigError(f"targets of shape {tuple(target.shape)} are not the host's, {host_target.shape}")


def _scored(target: Any, options: LossOptions, pad: int, eos: int) -> Any:
    """Positions (B, U) bool of a Tensor's, or an array's, targets that the loss counts."""
    scored = target != pad
    scored[:, : options.ignore_prefix_size] = False
    if options.ignore_eos:
        scored &= target != eos
    return scored


def _both_passes(values: Tensor, batch: int, use_rdrop: bool) -> Tensor:
    """Repeat per-row values for the second R-Drop pass where they come for the first one only."""
    if use_rdrop and batch % 2 == 0 and len(values) * 2 == batch:
        return values.repeat(2, *[1] * (values.dim() - 1))
    if len(values) != batch or (use_rdrop and batch % 2):
        hint = " (R-Drop needs the logits of two passes, one after the other)" if use_rdrop else ""
        raise ConfigError(f"{batch} rows of logits do not fit {len(values)} rows of targets{hint}")
    return values


def _mask(
    constraint_masks: Tensor | AllowedTokens | None, options: LossOptions, logits: Tensor
) -> Tensor | AllowedTokens | None:
    limits = parse_range(options.constraint_range)
    if constraint_masks is None:
        return None if limits is None else range_mask(limits, logits.size(-1), logits.device)
    if limits is not None:
        raise ConfigError("constraint_masks and constraint_range exclude each other: give one of them")
    if (
        tuple(constraint_masks.shape[1:]) != tuple(logits.shape[1:])
        or len(logits) % constraint_masks.shape[0]
    ):
        raise ConfigError(
            f"constraint_masks of shape {tuple(constraint_masks.shape)} do not fit logits of "
            f"{tuple(logits.shape)}"
        )
    if isinstance(constraint_masks, AllowedTokens):
        return constraint_masks
    return constraint_masks.reshape(-1, logits.size(-1))


def _sum(values: Tensor, kept: Tensor | None) -> Tensor:
    return values.sum() if kept is None else values[kept].sum()


def _kept(losses: Tensor, options: LossOptions, update_num: int) -> Tensor | None:
    """Return the numbers of the rows that stay after dropping, or None for all of them.

    With R-Drop the first pass decides for both, so that pairs stay together.
    """
    count = len(losses) // 2 if options.use_rdrop else len(losses)
    kept = None
    for ratio, after, largest in (
        (options.drop_worst_ratio, options.drop_worst_after, False),
        (options.drop_best_ratio, options.drop_best_after, True),
    ):
        if ratio > 0 and update_num > after:
            candidates = torch.arange(count, device=losses.device) if kept is None else kept
            size = int(len(candidates) * (1 - ratio))
            kept = candidates[losses[candidates].topk(size, largest=largest).indices]
    if kept is not None and options.use_rdrop:
        kept = torch.cat([kept, kept + count])
    return kept
