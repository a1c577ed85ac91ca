"""A closed list of answers as a tree: the prefixes that a decoder must see, and the steps that score each answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unival.core.deadline import in_time
from unival.errors import ConfigError
from unival.generate.trie import Trie

PAD, EOS = 1, 2


class Together(NamedTuple):
    """Prefixes of R rows side by side, each by its last token, those that they begin with among them.

    tokens and depth (R, U) int64, PAD and 1 behind the last; blocked (R, U, U): which tokens do not belong to a prefix;
    place (R, n): where the prefixes that were asked for stand.
    """

    tokens: np.ndarray
    depth: np.ndarray
    blocked: np.ndarray
    place: np.ndarray


class AnswerTree:
    """The distinct prefixes of C answers in depth-first order; prefix 0 is the empty one.

    candidates: token lists without bos, eos optional. A *step* is a token that may follow a prefix; the log-probability
    of an answer is the sum over its steps. With a constraint only prefixes behind which it leaves a choice have steps:
    renormalised over what it allows, a single choice adds log 1. Without one every prefix has the steps that answers
    take, and the whole vocabulary shares the probability.

    ``token``, ``parent`` and ``depth`` (N,) int64: the last token of a prefix, the prefix before it, its length;
    ``end`` (N,): prefixes n to end[n] - 1 begin with prefix n. ``starts`` (N + 1,) and ``words`` (E,): prefix n has
    steps starts[n] to starts[n + 1] - 1, each with its token. ``answer_steps`` (C, M), ``prefix_steps`` (N, M'): the
    steps to an answer and to a prefix, E behind the last. ``outside`` (C,) bool: not among what the constraint allows.
    Raises ConfigError when there is no candidate or one is empty, OverdueError (unival.core.deadline).
    """

    def __init__(self, candidates: Sequence[Sequence[int]], constraint: Trie | None = None) -> None:
        answers = [(*(t for t in candidate if t != EOS), EOS) for candidate in candidates]
        if not answers or any(len(answer) == 1 for answer in answers):
            raise ConfigError("ranking needs at least one candidate, and none may be empty")
        self.closed = constraint is not None
        self.outside = np.array([constraint is not None and answer not in constraint for answer in answers])
        choices = [self._choices(a, constraint, out) for a, out in zip(answers, self.outside, strict=True)]
        self._add_prefixes(answers, choices)
        self._add_steps(answers, choices, constraint)

    def __len__(self) -> int:
        """Number of prefixes N, the empty one included."""
        return len(self.token)

    @staticmethod
    def _choices(answer: tuple[int, ...], constraint: Trie | None, outside: bool) -> list[int]:
        """Return the positions of an answer that have a step."""
        in_time()
        if outside:
            return []
        if constraint is None:
            return list(range(len(answer)))
        return [j for j, count in enumerate(constraint.choices(answer)) if count > 1]

    def _add_prefixes(self, answers: list[tuple[int, ...]], choices: list[list[int]]) -> None:
        needed = {answer[: at[-1]] for answer, at in zip(answers, choices, strict=True) if at}
        self._number: dict[tuple[int, ...], int] = {(): 0}
        parent, token, depth = [0], [0], [0]
        for prefix in sorted(needed):  # so that what begins with a prefix stands right behind it
            for length in range(1, len(prefix) + 1):
                if prefix[:length] not in self._number:
                    parent.append(self._number[prefix[: length - 1]])
                    token.append(prefix[length - 1])
                    depth.append(length)
                    self._number[prefix[:length]] = len(self._number)
        self.parent, self.token, self.depth = (np.array(x, dtype=np.int64) for x in (parent, token, depth))
        self.end = np.arange(1, len(parent) + 1)
        for number in range(len(parent) - 1, 0, -1):
            self.end[parent[number]] = max(self.end[parent[number]], self.end[number])

    def _add_steps(
        self, answers: list[tuple[int, ...]], choices: list[list[int]], constraint: Trie | None
    ) -> None:
        words: dict[int, set[int]] = {}
        for answer, at in zip(answers, choices, strict=True):
            for j in at:
                words.setdefault(self._number[answer[:j]], set()).add(answer[j])
        if constraint is not None:
            prefixes = {number: prefix for prefix, number in self._number.items()}
            words = {number: set(constraint.allowed(prefixes[number])) for number in words}
        ordered = [sorted(words.get(number, ())) for number in range(len(self))]
        self.starts = np.cumsum([0, *(len(w) for w in ordered)])
        self.words = np.array([word for w in ordered for word in w], dtype=np.int64)
        step = {
            (n, word): self.starts[n] + k
            for n, following in enumerate(ordered)
            for k, word in enumerate(following)
        }
        paths = [
            [step[self._number[answer[:j]], answer[j]] for j in at]
            for answer, at in zip(answers, choices, strict=True)
        ]
        before: list[list[int]] = [[] for _ in range(len(self))]
        for answer, at, path in zip(answers, choices, paths, strict=True):
            for k, j in enumerate(at):
                before[self._number[answer[:j]]] = path[:k]
        self.answer_steps, self.prefix_steps = self._padded(paths), self._padded(before)

    def _padded(self, paths: list[list[int]]) -> np.ndarray:
        padded = np.full((len(paths), max(1, *map(len, paths))), len(self.words), dtype=np.int64)
        for row, path in zip(padded, paths, strict=True):
            row[: len(path)] = path
        return padded

    @property
    def scored(self) -> np.ndarray:
        """Prefixes that have steps, in order; without any, nothing needs a model."""
        return np.flatnonzero(np.diff(self.starts))

    def together(self, prefixes: np.ndarray) -> Together:
        """Lay out prefixes (R, n), -1 where a row has fewer, for one pass of the decoder."""
        rows = prefixes[:1] if (prefixes == prefixes[0]).all() else prefixes
        lines = [self._closure(row[row >= 0]) for row in rows]
        width = max(map(len, lines))
        tokens, depth = np.full((len(lines), width), PAD), np.ones((len(lines), width), dtype=np.int64)
        blocked = np.repeat(~np.eye(width, dtype=bool)[None], len(lines), 0)
        place = np.zeros_like(rows)
        for i, line in enumerate(lines):
            size = len(line)
            tokens[i, :size], depth[i, :size] = self.token[line], self.depth[line]
            after, before = line[:, None], line[None, :]
            blocked[i, :size, :size] = (after < before) | (after >= self.end[before])
            place[i] = np.searchsorted(line, rows[i].clip(0))
        times = len(prefixes) // len(lines)
        return Together(*(np.repeat(x, times, 0) for x in (tokens, depth, blocked, place)))

    def _closure(self, prefixes: np.ndarray) -> np.ndarray:
        """Return prefixes (n,) with all that they begin with but the empty one, in order."""
        found = [prefixes]
        while found[-1].any():
            found.append(np.unique(self.parent[found[-1]]))
        both = np.unique(np.concatenate(found))
        return both[both > 0]
