"""Scores of given answers: the log-probability of every candidate, computed once per distinct prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unival.core.deadline import in_time
from unival.core.transfers import to_device
from unival.errors import ConfigError
from unival.generate.rows import BOS, EOS, PAD
from unival.generate.run import encode, evaluating
from unival.generate.trie import Trie


@torch.no_grad()
def rank_candidates(
    model: Any,
    net_input: dict[str, Any],
    candidates: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]] | None = None,
    constraint: Trie | None = None,
    chunk: int = 128,
) -> Tensor:
    """Return (B, C) float32: summed log-probabilities of every candidate and eos behind each row's prompt.

    candidates: token lists without bos, eos optional; prompts: per row the decoder tokens between bos and the
    answer (without bos), of any lengths; they are not scored. With a constraint the log-probabilities are
    renormalised over what it allows at each position, and a candidate outside it scores -inf.
    ``chunk`` bounds how many (row, prefix) pairs run at once. Positions where only one token is allowed cost
    nothing; prefixes that candidates share run once. The encoder runs once.
    Raises ConfigError when there is no candidate or prompts do not fit the batch, OverdueError
    (unival.core.deadline).
    """
    answers = [[*(t for t in candidate if t != EOS), EOS] for candidate in candidates]
    batch = len(net_input["src_tokens"])
    given = [list(p) for p in prompts] if prompts is not None else [[] for _ in range(batch)]
    if not answers or any(len(a) == 1 for a in answers):
        raise ConfigError("ranking needs at least one candidate, and none may be empty")
    if len(given) != batch:
        raise ConfigError(f"{len(given)} prompts do not fit a batch of {batch}")
    paths, path_of = _paths(answers, constraint)
    longest = max(len(p) for p in paths)
    with evaluating(model):
        encoder_out = encode(model, net_input)
        device = encoder_out.states.device
        scores = torch.zeros(batch, len(answers), device=device)
        for length in sorted({len(p) for p in given}):  # prompts of one length need no padding in the cache
            same = [i for i, p in enumerate(given) if len(p) == length]
            for first in range(0, len(same), chunk):
                group = torch.tensor(same[first : first + chunk])
                out = encoder_out.select(group)
                prompt = torch.tensor([[BOS, *given[i]] for i in group.tolist()], device=device)
                state = model.decoder.start(out, length + 1 + longest)
                root = model.decoder.prefill(prompt, state)[:, -1]
                scores[group.to(device)] = _score_group(
                    model.decoder, state, root, answers, paths, path_of, constraint, chunk
                )
    return scores


def _paths(answers: list[list[int]], constraint: Trie | None) -> tuple[list[list[int]], np.ndarray]:
    """Return the distinct prefixes that must run, and for each answer which one covers it.

    An answer needs its tokens before the last position at which more than one token is allowed.
    """
    needed = []
    for answer in answers:
        last = len(answer) - 1
        if constraint is not None:
            last = max((j for j, n in enumerate(constraint.choices(answer)) if n > 1), default=0)
        needed.append(tuple(answer[:last]))
    order = sorted(
        set(needed)
    )  # a prefix stands right before what it begins: only the longest of a chain runs
    paths: list[list[int]] = []
    place: dict[tuple[int, ...], int] = {}
    waiting: list[tuple[int, ...]] = []
    for prefix, following in zip(order, [*order[1:], None], strict=True):
        waiting.append(prefix)
        if following is None or following[: len(prefix)] != prefix:
            place |= dict.fromkeys(waiting, len(paths))  # sorted: all that waits begins this prefix
            waiting = []
            paths.append(list(prefix))
    return paths, np.array([place[n] for n in needed])


def _score_group(
    decoder: Any,
    state: Any,
    root: Tensor,
    answers: list[list[int]],
    paths: list[list[int]],
    path_of: np.ndarray,
    constraint: Trie | None,
    chunk: int,
) -> Tensor:
    """Return (G, C) scores of rows whose prompts ``state`` has seen; root: (G, V) logits behind those."""
    rows, device, prompt_length = len(root), root.device, state.length
    size = max(1, chunk // rows)
    scores = torch.zeros(rows, len(answers), device=device)
    first = _log_probs(root[:, None], [[]], constraint)  # (G, 1, V)
    width = 0
    for begin in range(0, len(paths), size):
        in_time()
        part = paths[begin : begin + size]
        length = max(len(p) for p in part)
        after = None
        if length:
            if width != len(part):
                # what a chunk wrote behind the prompt is overwritten: one expansion serves all chunks
                state.reorder(np.repeat(np.arange(rows) * max(width, 1), len(part)))
                width = len(part)
            state.length = prompt_length
            tokens = to_device(np.array([p + [PAD] * (length - len(p)) for p in part]), device)
            logits = decoder.prefill(tokens.repeat(rows, 1), state)
            prefixes = [p[:j] if j <= len(p) else None for p in part for j in range(1, length + 1)]
            after = _log_probs(logits.view(rows, len(part) * length, -1), prefixes, constraint)
        for c in np.flatnonzero((path_of >= begin) & (path_of < begin + len(part))):
            path = path_of[c] - begin
            scores[:, c] = first[:, 0, answers[c][0]]
            # Where an answer leaves its path, the constraint left it no choice: renormalised, that adds log 1.
            covered = min(len(answers[c]) - 1, len(part[path]))
            for j in range(1, covered + 1):
                if after is not None and answers[c][:j] == part[path][:j]:
                    scores[:, c] += after[:, path * length + j - 1, answers[c][j]]
            if constraint is not None and answers[c] not in constraint:
                scores[:, c] = -torch.inf
    return scores


def _log_probs(logits: Tensor, prefixes: Sequence[list[int] | None], constraint: Trie | None) -> Tensor:
    """Log-softmax of logits (G, n, V) over what the constraint allows behind each of n prefixes."""
    scores = logits.float()
    if constraint is not None:
        states = _states(constraint, prefixes)
        allowed = constraint.mask(states, logits.size(-1), logits.device)
        scores = scores.masked_fill(~allowed, -torch.inf)
    return torch.log_softmax(scores, dim=-1)


def _states(constraint: Trie, prefixes: Sequence[list[int] | None]) -> np.ndarray:
    """Return the trie's states behind prefixes; one that continues the prefix before it takes one step."""
    found: list[int] = []
    before: list[int] | None = None
    for prefix in prefixes:
        in_time()
        if before is not None and prefix and prefix[:-1] == before:
            found.append(int(constraint.advance(np.array(found[-1:]), np.array(prefix[-1:]))[0]))
        else:
            found.append(constraint.state(prefix or []))
        before = prefix
    return np.array(found)
