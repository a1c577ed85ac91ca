"""Sampling: top-k, top-p, temperature, with random numbers that belong to the row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unival.core.seeding import rng_for
from unival.core.transfers import to_device, to_host
from unival.generate.largest import largest
from unival.generate.rows import EOS, Rows, Steps
from unival.generate.settings import GenerationSettings, Hypothesis


@torch.no_grad()
def sample(rows: Rows, steps: Steps, keys: Sequence[int]) -> list[list[Hypothesis]]:
    """Return ``beam`` independent samples per sentence, highest score first.

    keys: one number per sentence; sample k of a sentence draws from (seed, key, k) alone, so results depend
    neither on the batch size, nor on the row's place, nor on how many samples are asked for. Scores are those
    of the untruncated distribution (reference behaviour).
    """
    task = rows.task
    settings, length = task.settings, int(task.limit.max()) + 1
    uniform = np.stack([_uniform(settings, key, length) for key in keys])  # (B, K, length)
    results: list[list[Hypothesis]] = [[] for _ in task.limit]
    ended = np.zeros(len(rows), dtype=bool)
    width = 1
    while len(rows):
        scores = rows.log_probs(steps.logits(rows))
        split = settings.beam if width == 1 and not rows.forced.all() else 1
        width *= split
        parent = np.repeat(np.arange(len(rows)), split)
        number = np.arange(len(parent)) % width
        token, chosen = _draw(scores, parent, uniform[rows.sentence[parent], number, rows.step], settings)
        total = rows.score[parent] + chosen
        ended = ended[parent]
        now = (token == EOS) & ~ended
        for i in np.flatnonzero(now & (total > -np.inf)):
            copies = settings.beam if width == 1 else 1
            results[rows.sentence[parent[i]]] += [rows.finished(parent[i], total[i])] * copies
        ended |= now | ~(total > -np.inf)
        # a sentence keeps all its rows until the last sample has ended, so that rows stay in equal groups
        going = np.repeat(~ended.reshape(-1, width).all(1), width)
        count, parent, ended = len(rows), parent[going], ended[going]
        rows = rows.extended(parent, token[going], total[going])
        if len(rows):
            steps.reorder(parent, count)
    for found in results:
        found.sort(key=lambda h: -h.score)
    return results


def _uniform(settings: GenerationSettings, key: int, length: int) -> np.ndarray:
    return np.stack(
        [rng_for(settings.seed, 0, key, f"sample {k}").random(length) for k in range(settings.beam)]
    )


def _draw(
    scores: Tensor, parent: np.ndarray, draws: np.ndarray, settings: GenerationSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return (token, log-probability) for each of ``parent`` (N,) by inverting the cumulative distribution.

    Tokens are ordered by probability, so that one number in [0, 1) means the same token on every device.
    """
    if settings.sampling_topk > 0:
        ordered, tokens = largest(scores, min(settings.sampling_topk, scores.size(1)))
    else:
        ordered, tokens = scores.sort(dim=1, descending=True, stable=True)
    # relative to the best token, or a forced one of tiny probability would vanish
    mass = (ordered.double() - ordered[:, :1].double()).exp().nan_to_num(0.0)
    if settings.sampling_topp > 0:
        before = mass.cumsum(1) - mass
        mass = mass.masked_fill(before >= settings.sampling_topp * mass.sum(1, keepdim=True), 0.0)
    index = to_device(parent, scores.device)
    cumulative = mass.cumsum(1)[index]
    aim = to_device(draws, scores.device)[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, aim, right=True).clamp_max(cumulative.size(1) - 1)
    token = tokens[index].gather(1, place).squeeze(1)
    chosen = ordered[index].gather(1, place).squeeze(1)
    # the one stop of a step: tokens beside the bits of their scores, in one copy
    both = to_host(torch.stack([token.to(torch.int32), chosen.view(torch.int32)]))
    return both[0].astype(np.int64), both[1].view(np.float32)
