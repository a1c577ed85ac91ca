"""A trie over token sequences in arrays, with vectorised masks for batches of states.

Children of node n are ``edges[starts[n]:starts[n + 1]]`` (compressed sparse rows), sorted by token. The root
is node 0; node -1 is the state of an unknown prefix, from which only the end symbol is allowed (reference
behaviour, so that a sequence always ends).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from unival.core.deadline import in_time
from unival.core.transfers import to_device
from unival.errors import ConfigError

UNKNOWN = -1


class Trie:
    """Set of token sequences, each followed by ``eos``; prefixes do not contain bos.

    sequences: token lists without bos; a trailing ``eos`` is optional. Raises ConfigError when there are no
    sequences or one of them is empty, OverdueError (unival.core.deadline).
    """

    def __init__(self, sequences: Iterable[Sequence[int]], eos: int = 2) -> None:
        children: list[dict[int, int]] = [{}]
        for sequence in sequences:
            in_time()
            tokens = list(sequence)
            if tokens and tokens[-1] == eos:
                tokens.pop()
            if not tokens:
                raise ConfigError("a constraint holds an empty answer: remove it")
            node = 0
            for token in [*tokens, eos]:
                following = children[node].get(token)
                if following is None:
                    following = children[node][token] = len(children)
                    children.append({})
                node = following
        if len(children) == 1:
            raise ConfigError("a constraint needs at least one answer")
        self.eos = eos
        counts = np.array([len(c) for c in children], dtype=np.int64)
        self.starts = np.zeros(len(children) + 1, dtype=np.int64)
        np.cumsum(counts, out=self.starts[1:])
        ordered = [(token, c[token]) for c in children for token in sorted(c)]
        self.edges = np.array([token for token, _ in ordered], dtype=np.int64)
        self.targets = np.array([target for _, target in ordered], dtype=np.int64)
        # node * width + token is sorted over all edges, so that one binary search finds any child
        self._width = int(self.edges.max()) + 1
        self._keys = np.repeat(np.arange(len(children)), counts) * self._width + self.edges

    def __len__(self) -> int:
        """Number of nodes, the root included."""
        return len(self.starts) - 1

    def root(self, rows: int) -> np.ndarray:
        """Return the state (rows,) int64 of empty prefixes."""
        return np.zeros(rows, dtype=np.int64)

    def advance(self, states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the states (R,) after one more token each; UNKNOWN where it leaves the trie."""
        keys = states * self._width + tokens
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = (states >= 0) & (tokens >= 0) & (tokens < self._width) & (self._keys[place] == keys)
        return np.where(known, self.targets[place], UNKNOWN)

    def choices(self, sequence: Sequence[int]) -> list[int]:
        """Return how many tokens are allowed at every position of ``sequence``; 0 outside the trie."""
        state, counts = self.root(1), []
        for token in sequence:
            node = int(state[0])
            counts.append(int(self.starts[node + 1] - self.starts[node]) if node != UNKNOWN else 0)
            state = self.advance(state, np.array([token]))
        return counts

    def __contains__(self, sequence: Sequence[int]) -> bool:
        """Whether ``sequence``, with its eos, is one of the trie."""
        return self.state(sequence) != UNKNOWN

    def pairs(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, token) of every allowed continuation of states (R,), as two flat arrays.

        An unknown prefix, and a sequence that has ended, allow only ``eos``.
        """
        first = self.starts[np.maximum(states, 0)]
        counts = np.where(states >= 0, self.starts[np.maximum(states, 0) + 1] - first, 0)
        closed = counts == 0
        counts = np.where(closed, 1, counts)
        rows = np.repeat(np.arange(len(states)), counts)
        offset = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        index = np.minimum(np.repeat(first, counts) + offset, len(self.edges) - 1)
        return rows, np.where(closed[rows], self.eos, self.edges[index])

    def mask(self, states: np.ndarray, vocab_size: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the (R, V) bool mask of allowed continuations of states (R,)."""
        rows, tokens = self.pairs(states)
        allowed = torch.zeros(len(states), vocab_size, dtype=torch.bool, device=device)
        index = to_device(np.stack([rows, tokens]), device)
        allowed.index_put_((index[0], index[1]), allowed.new_ones(()))  # a number of the host would be copied
        return allowed

    def state(self, prefix: Iterable[int]) -> int:
        """Return the state of one prefix (without bos)."""
        state = self.root(1)
        for token in prefix:
            state = self.advance(state, np.array([token]))
        return int(state[0])

    def allowed(self, prefix: Iterable[int]) -> list[int]:
        """Return the sorted tokens that may follow ``prefix`` (without bos)."""
        return sorted(int(token) for token in self.pairs(np.array([self.state(prefix)]))[1])

    def allowed_lists(self, sequence: Sequence[int]) -> list[list[int]]:
        """Return the allowed tokens at every position of ``sequence`` (for training masks)."""
        state, lists = self.root(1), []
        for token in sequence:
            lists.append(sorted(int(t) for t in self.pairs(state)[1]))
            state = self.advance(state, np.array([token]))
        return lists
