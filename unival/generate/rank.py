"""Scores of given answers: the log-probability of every candidate, a pass over many prefixes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unival.core.deadline import in_time
from unival.core.transfers import to_device, to_host
from unival.errors import ConfigError
from unival.generate.answer_tree import AnswerTree
from unival.generate.rows import BOS, PAD
from unival.generate.run import encode, evaluating
from unival.generate.trie import Trie

VOCABULARY_ROWS = 128  # whole vocabularies held in float32 at once where nothing is masked
LOOK = 8  # prefixes of a row that a search for the best looks at in one pass


@torch.no_grad()
def rank_candidates(
    model: Any,
    net_input: dict[str, Any],
    candidates: Sequence[Sequence[int]] | AnswerTree,
    prompts: Sequence[Sequence[int]] | None = None,
    constraint: Trie | None = None,
    chunk: int = 512,
    best: int | None = None,
) -> Tensor:
    """Return (B, C) float32: summed log-probabilities of every candidate and eos behind each row's prompt.

    candidates: token lists without bos, eos optional, or their tree (then the constraint is the tree's); prompts: per
    row the decoder tokens between bos and the answer (without bos), of any lengths; they are not scored. With a
    constraint the log-probabilities are renormalised over what it allows at each position, and a candidate outside it
    scores -inf. ``chunk`` bounds how many (row, prefix) pairs run at once, but for prefixes of prefixes. The encoder,
    the keys and values of its output and the prompts run once.
    best: when only the order of the first ``best`` matters. An answer cannot score above any of its prefixes, so
    prefixes below the ``best`` found are left out; answers behind them are -inf. What is found is exact, ties included.
    Raises ConfigError when there is no candidate or prompts do not fit the batch, OverdueError
    (unival.core.deadline).
    """
    tree = candidates if isinstance(candidates, AnswerTree) else AnswerTree(candidates, constraint)
    batch = len(net_input["src_tokens"])
    given = [list(p) for p in prompts] if prompts is not None else [[] for _ in range(batch)]
    if len(given) != batch:
        raise ConfigError(f"{len(given)} prompts do not fit a batch of {batch}")
    with evaluating(model):
        encoder_out = encode(model, net_input)
        scores = []
        for first in range(0, batch, chunk):
            group = given[first : first + chunk]
            out = (
                encoder_out
                if len(group) == batch
                else encoder_out.select(torch.arange(first, first + len(group)))
            )
            ranking = _Ranking(model.decoder, out, tree, group)
            scores.append(ranking.all(chunk) if best is None else ranking.best(best, chunk))
    return torch.cat(scores) if scores else torch.zeros(0, len(tree.outside))


class _Ranking:
    """The log-probabilities of steps behind the prompts of R rows, filled pass by pass."""

    def __init__(self, decoder: Any, encoder_out: Any, tree: AnswerTree, prompts: list[list[int]]) -> None:
        self.decoder, self.tree, self.device = decoder, tree, encoder_out.states.device
        # rows that are still looked at: their number in the result and their prompt's length with bos
        self.rows = np.arange(len(prompts))
        self.lengths = np.array([len(prompt) + 1 for prompt in prompts])
        longest = int(self.lengths.max())
        self.state = decoder.start(encoder_out, longest + int(tree.depth.max()))
        tokens = np.array([[BOS, *p] + [PAD] * (longest - len(p) - 1) for p in prompts])
        features = decoder.prefill(self._there(tokens), self.state, features_only=True)
        steps = len(tree.words)
        self.log_probs = torch.full((len(prompts), steps + 1), -torch.inf, device=self.device)
        self.log_probs[:, steps] = 0.0  # the place behind the last step of an answer
        self.answer_steps = self._there(tree.answer_steps)
        self.outside = self._there(tree.outside)
        if tree.starts[1]:
            last = features[self._there(self.rows), self._there(self.lengths - 1)]
            self._score(last[:, None], np.zeros((len(prompts), 1), dtype=np.int64))

    def all(self, chunk: int) -> Tensor:
        """Return (R, C) scores of all answers."""
        scored = self.tree.scored
        scored = scored[scored > 0]
        size = max(1, chunk // len(self.rows))
        for first in range(0, len(scored), size):
            self._expand(np.tile(scored[first : first + size], (len(self.rows), 1)))
        return self._scores(self.log_probs)

    def best(self, count: int, chunk: int) -> Tensor:
        """Return (R, C) scores of which the ``count`` best of a row are all there."""
        scored = self.tree.scored
        before = self._there(self.tree.prefix_steps[scored])
        waiting = np.repeat((scored > 0)[None], len(self.rows), 0)
        while waiting.any():
            known = self.log_probs[self._there(self.rows)]
            bounds = _sums(known, before)
            least = self._scores(known).topk(min(count, len(self.outside))).values[:, -1:]
            # at the least itself a tie may hide
            bounds = bounds.masked_fill(~self._there(waiting) | (bounds < least), -torch.inf)
            top = bounds.topk(min(LOOK, max(1, chunk // len(self.rows)), len(scored)))
            chosen = to_host(torch.where(top.values.isfinite(), top.indices, -1))
            going = np.flatnonzero((chosen >= 0).any(1))
            if not len(going):
                break
            # leaving copies the memory: rows that are done wait for each other
            if 2 * len(going) <= len(chosen):
                self._keep(going)
                waiting, chosen = waiting[going], chosen[going]
            row, column = np.nonzero(chosen >= 0)
            waiting[row, chosen[row, column]] = False
            self._expand(np.where(chosen >= 0, scored[chosen], -1))
        return self._scores(self.log_probs)

    def _scores(self, log_probs: Tensor) -> Tensor:
        return _sums(log_probs, self.answer_steps).masked_fill(self.outside, -torch.inf)

    def _keep(self, rows: np.ndarray) -> None:
        self.state.keep(rows)
        self.rows, self.lengths = self.rows[rows], self.lengths[rows]

    def _expand(self, prefixes: np.ndarray) -> None:
        """Fill in the steps behind prefixes (R, n), -1 where a row has fewer, none of them the empty one."""
        in_time()
        tokens, depth, blocked, place = self.tree.together(prefixes)
        padding = np.arange(self.state.length) >= self.lengths[:, None]  # of the prompts
        hidden = np.concatenate([np.repeat(padding[:, None], blocked.shape[1], 1), blocked], 2)
        at = depth - 1 + self.lengths[:, None]
        features = self.decoder.branch(*map(self._there, (tokens, at, hidden)), self.state)
        rows = np.arange(len(prefixes))[:, None]
        self._score(features[self._there(rows), self._there(place)], prefixes)

    def _score(self, features: Tensor, prefixes: np.ndarray) -> None:
        """Fill in the steps behind prefixes (R, n), -1 for none, from their features (R, n, D)."""
        tree = self.tree
        first = tree.starts[prefixes]
        counts = np.where(prefixes >= 0, tree.starts[prefixes + 1] - first, 0)
        steps = first[..., None] + np.arange(counts.max())
        used = np.arange(counts.max()) < counts[..., None]
        words, number = np.unique(tree.words[np.where(used, steps, 0)], return_inverse=True)
        which, mask = self._there(number.reshape(steps.shape)), self._there(used)
        if tree.closed:
            logits = self.decoder.output_layer(features, self._there(words)).float().gather(-1, which)
            log_probs = logits.masked_fill(~mask, -torch.inf).log_softmax(-1)
        else:
            log_probs = self._of_vocabulary(features, self._there(words)).gather(-1, which)
        at = np.nonzero(used)
        found = log_probs[tuple(map(self._there, at))]
        self.log_probs[self._there(self.rows[at[0]]), self._there(steps[used])] = found

    def _of_vocabulary(self, features: Tensor, words: Tensor) -> Tensor:
        """Log-probabilities (R, n, W) of words (W,) among the whole vocabulary."""
        parts = []
        for part in features.flatten(0, 1).split(VOCABULARY_ROWS):
            logits = self.decoder.output_layer(part).float()
            parts.append(logits[:, words] - logits.logsumexp(-1, keepdim=True))
        return torch.cat(parts).view(*features.shape[:2], -1)

    def _there(self, numbers: np.ndarray) -> Tensor:
        return to_device(numbers, self.device)


def _sums(log_probs: Tensor, steps: Tensor) -> Tensor:
    """Sums (R, n) of log-probabilities (R, E + 1) over steps (n, M), in their order.

    In that order no rounding lifts an answer above its prefix, which a search for the best relies on.
    """
    total = log_probs[:, steps[:, 0]]
    for column in steps.unbind(1)[1:]:
        total = total + log_probs[:, column]
    return total
