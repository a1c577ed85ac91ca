"""Beam search with fairseq's semantics."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unival.core.transfers import to_device, to_host
from unival.errors import ConfigError
from unival.generate.largest import largest
from unival.generate.rows import EOS, Rows, Steps
from unival.generate.settings import Hypothesis


@torch.no_grad()
def beam_search(rows: Rows, steps: Steps) -> list[list[Hypothesis]]:
    """Return up to ``beam`` hypotheses per sentence, best first.

    At each step the 2 * beam best continuations of a sentence are looked at. Those among the first ``beam``
    that end in eos are results; the first ``beam`` others live on. A sentence is done with ``beam`` results,
    at its length limit, or when no continuation is possible; then its rows leave the batch. While all
    prefixes last, a sentence is one row; after that it has ``beam`` rows, some perhaps dead (score -inf).
    Raises ConfigError when ``stop_on_max_len`` is off and a sentence has fewer results.
    """
    task = rows.task
    beam = task.settings.beam
    results: list[list[Hypothesis]] = [[] for _ in task.limit]
    while len(rows):
        scores = rows.log_probs(steps.logits(rows))
        scores += to_device(rows.score, scores.device)[:, None]
        parent, token, total = _candidates(rows, scores, 2 * beam)
        possible = total > -np.inf
        ends = (token == EOS) & possible
        sentences, forced = rows.sentence[parent[:, 0]], rows.forced[parent[:, 0]]
        for row, rank in zip(*np.nonzero(ends[:, :beam]), strict=True):
            found = results[sentences[row]]
            # A prefix that itself ends in eos fills all ranks with the one result (reference behaviour).
            for _ in range(beam if forced[row] else 1):
                if len(found) < beam:
                    found.append(rows.finished(parent[row, rank], total[row, rank]))
        done = np.array([len(results[s]) >= beam for s in sentences]) | (rows.step >= task.limit[sentences])
        alive = possible & ~ends & ~done[:, None]
        going = alive.any(1)
        width = 1 if forced[going].all() else beam
        best = np.argsort(~alive[going], axis=1, kind="stable")[:, :width]
        best = np.pad(best, ((0, 0), (0, width - best.shape[1])), mode="edge")
        chosen = [np.take_along_axis(x[going], best, axis=1) for x in (parent, token, total, alive)]
        # fewer than ``width`` continuations: the rest are dead rows, also where padding repeated a live one
        dead = ~chosen[3] | (np.arange(width) >= alive[going].sum(1, keepdims=True))
        chosen[2][dead] = -np.inf
        count, kept = len(rows), chosen[0].reshape(-1)
        rows = rows.extended(kept, chosen[1].reshape(-1), chosen[2].reshape(-1))
        if len(rows):
            steps.reorder(kept, count)
    for i, found in enumerate(results):
        if len(found) < beam and not task.settings.stop_on_max_len:
            raise ConfigError(
                f"row {i}: only {len(found)} of {beam} hypotheses end within {task.limit[i]} tokens: "
                "use a smaller beam, or stop_on_max_len"
            )
        found.sort(key=lambda h: -h.score)
    return results


def _candidates(rows: Rows, scores: Tensor, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, token, score) of the ``count`` best continuations per sentence, best first, (B', C)."""
    sentences = len(np.unique(rows.sentence))
    width, vocab_size = len(rows) // sentences, scores.size(1)
    total, place = largest(scores.view(sentences, -1), min(count, width * vocab_size))
    # the one stop of a step: places beside the bits of their scores, in one copy
    both = to_host(torch.cat([place.to(torch.int32), total.view(torch.int32)], 1))
    number = both[:, : place.size(1)].astype(np.int64)
    parent = np.arange(0, len(rows), width)[:, None] + number // vocab_size
    return parent, number % vocab_size, both[:, place.size(1) :].copy().view(np.float32)
