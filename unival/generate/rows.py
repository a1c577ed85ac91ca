"""What beam search and sampling share: the rows being decoded and the rules for their next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unival.core.deadline import in_time
from unival.core.transfers import to_device
from unival.generate.constraints import SPECIALS, range_mask
from unival.generate.settings import GenerationSettings, Hypothesis
from unival.generate.trie import Trie

BOS, PAD, EOS, UNK = 0, 1, 2, 3


@dataclass
class Task:
    """One call of ``generate``: settings, constraint, forced prefixes and length limits of B rows.

    prefix: (B, P) int64 without bos, PAD behind; limit: (B,) tokens before eos.
    """

    settings: GenerationSettings
    trie: Trie | None
    limits: tuple[int, int] | None
    prefix: np.ndarray
    limit: np.ndarray

    def __post_init__(self) -> None:
        self.prefix_length = np.minimum((self.prefix != PAD).sum(1), self.limit)

    def hypothesis(self, tokens: np.ndarray, cumulative: np.ndarray, cut: bool) -> Hypothesis:
        """Build a result from tokens (L,), eos included, and their cumulative log-probabilities (L,)."""
        score = float(cumulative[-1])
        if not self.settings.unnormalized:
            score /= len(tokens) ** self.settings.lenpen
        return Hypothesis(tokens.tolist(), score, np.diff(cumulative, prepend=np.float32(0)).tolist(), cut)


# numpy on the CPU: a step picks single numbers out of all of this, and each would wait for a GPU.
@dataclass
class Rows:
    """Rows being decoded. R changes from step to step: rows split, and finished ones leave.

    sentence: (R,) row of the batch; tokens: (R, L) int64 from bos on; cumulative: (R, L - 1) float32
    log-probabilities summed up to each token; state: (R,) trie states behind the prefix.
    """

    task: Task
    sentence: np.ndarray
    tokens: np.ndarray
    cumulative: np.ndarray
    state: np.ndarray

    @classmethod
    def start(cls, task: Task) -> Rows:
        count = len(task.limit)
        return cls(
            task,
            sentence=np.arange(count),
            tokens=np.full((count, 1), BOS, dtype=np.int64),
            cumulative=np.zeros((count, 0), dtype=np.float32),
            state=np.zeros(count, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.sentence)

    @property
    def step(self) -> int:
        """Number of tokens behind bos."""
        return self.tokens.shape[1] - 1

    @property
    def score(self) -> np.ndarray:
        """Log-probability (R,) so far."""
        return self.cumulative[:, -1] if self.step else np.zeros(len(self), dtype=np.float32)

    @property
    def forced(self) -> np.ndarray:
        """Rows (R,) bool whose next token is given by the prefix."""
        return self.step < self.task.prefix_length[self.sentence]

    def extended(self, parent: np.ndarray, tokens: np.ndarray, total: np.ndarray) -> Rows:
        """Return the rows that continue rows ``parent`` (R',) by one token each; ``total``: new scores."""
        state = self.state[parent]
        if self.task.trie is not None:
            state = np.where(self.forced[parent], state, self.task.trie.advance(state, tokens))
        return Rows(
            self.task,
            self.sentence[parent],
            np.concatenate([self.tokens[parent], tokens[:, None]], axis=1),
            np.concatenate([self.cumulative[parent], total[:, None].astype(np.float32)], axis=1),
            state,
        )

    def finished(self, parent: int, total: float) -> Hypothesis:
        """Return row ``parent`` ended by eos with score ``total``."""
        return self.task.hypothesis(
            np.append(self.tokens[parent, 1:], EOS),
            np.append(self.cumulative[parent], np.float32(total)),
            cut=bool(self.step >= self.task.limit[self.sentence[parent]]),
        )

    def log_probs(self, logits: Tensor) -> Tensor:
        """Return (R, V) float32 log-probabilities of the next token, -inf where it may not come.

        Trie and range act on the logits, so what remains is renormalised (unless ``zero_shot``); everything
        else acts behind the softmax, so that scores stay those of the model. Forced rows allow the prefix
        token alone: neither constraint, minimum length nor n-gram blocking acts on what was given.
        """
        task, settings, step = self.task, self.task.settings, self.step
        device, vocab_size = logits.device, logits.size(1)
        forced = self.forced
        scores = logits.float()
        if settings.temperature != 1:
            scores = scores / settings.temperature
        allowed: Tensor | None = None
        if task.trie is not None:
            allowed = task.trie.mask(self.state, vocab_size, device)
        elif task.limits is not None:
            allowed = range_mask(task.limits, vocab_size, device).expand(len(self), -1)
        if allowed is not None and forced.any():
            allowed = allowed | to_device(forced, device)[:, None]
        if allowed is not None and not settings.zero_shot:
            scores = scores.masked_fill(~allowed, -torch.inf)
        scores = torch.log_softmax(scores, dim=-1)
        lost = scores[:, :1].isnan()  # one number that is none, or nothing allowed, makes the whole row so
        if lost.is_cuda or bool(lost.any()):
            scores.masked_fill_(lost, -torch.inf)
        if allowed is not None and settings.zero_shot:
            scores.masked_fill_(~allowed, -torch.inf)
        scores[:, PAD] = -torch.inf
        scores[:, UNK] -= settings.unkpen

        at_limit = step >= task.limit[self.sentence]
        free = ~forced
        if settings.gen_code:
            scores[:, :SPECIALS].index_fill_(0, _index(free & ~at_limit, device), -torch.inf)
        if step < settings.min_len:
            scores[:, EOS].index_fill_(0, _index(free & ~at_limit, device), -torch.inf)
        if settings.no_repeat_ngram_size:
            at = to_device(np.stack(self._repeats(free, settings.no_repeat_ngram_size)), device)
            lowest = scores.new_full((), -torch.inf)  # a number of the host would be copied
            scores.index_put_((at[0], at[1]), lowest)
        if at_limit.any():  # eos keeps its score: a cut output is judged as one that ends here
            _only(scores, _index(at_limit, device), EOS)
        if forced.any():
            given = to_device(task.prefix[self.sentence[forced], step], device)
            _only(scores, _index(forced, device), given)
        return scores

    def _repeats(self, free: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, token) pairs that would complete an n-gram which the row already holds."""
        empty = np.zeros(0, dtype=np.int64)
        length = self.tokens.shape[1]
        if length < size:
            return empty, empty
        windows = np.lib.stride_tricks.sliding_window_view(self.tokens, size, axis=1)  # (R, L - n + 1, n)
        last = self.tokens[:, length - size + 1 :]
        rows, places = np.nonzero((windows[:, :, :-1] == last[:, None]).all(-1) & free[:, None])
        return rows, windows[rows, places, -1]


def _index(rows: np.ndarray, device: torch.device) -> Tensor:
    return to_device(np.flatnonzero(rows), device)


def _only(scores: Tensor, rows: Tensor, tokens: Tensor | int) -> None:
    """Leave one token per row its score and take it from all others."""
    tokens = torch.full_like(rows, tokens) if isinstance(tokens, int) else tokens
    kept = scores[rows, tokens]
    scores.index_fill_(0, rows, -torch.inf)
    scores[rows, tokens] = kept


class Steps:
    """Feeds rows to the decoder. What all rows share of their prefixes runs in one pass where possible."""

    def __init__(self, decoder: Any, state: Any, rows: Rows) -> None:
        self.decoder, self.state = decoder, state
        self.device = next(decoder.parameters()).device
        common = int(rows.task.prefix_length.min())
        self.ready: Tensor | None = None
        if common and hasattr(decoder, "prefill"):
            tokens = np.concatenate([rows.tokens, rows.task.prefix[:, :common]], axis=1)
            self.ready = decoder.prefill(to_device(tokens, self.device), state)

    def logits(self, rows: Rows) -> Tensor:
        """Return (R, V) logits of the next token. Raises OverdueError (unival.core.deadline)."""
        in_time()
        if self.ready is not None:
            if rows.step < self.ready.size(1):
                return self.ready[:, rows.step]
            self.ready = None
        return self.decoder.step(to_device(rows.tokens[:, -1], self.device), self.state)

    def reorder(self, parent: np.ndarray, count: int) -> None:
        """Let row i continue what row ``parent[i]`` of the ``count`` rows before was."""
        if len(parent) == count and (parent == np.arange(count)).all():
            return
        if self.ready is not None:
            self.ready = self.ready[to_device(parent, self.device)]
        self.state.reorder(parent)  # on the host, where the state looks at it before it moves anything
