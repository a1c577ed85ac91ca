"""Ranking a closed list: equal to the plain computation, whatever runs together, and the best are the best."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.model_fixtures import VOCAB, mixed_batch, small_model
from unival.errors import ConfigError
from unival.generate import AnswerTree, Trie, rank_candidates

PROMPTS = [[11, 12], [], [13, 14, 15, 16], [17], [18, 19]]
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normalised": {"qk_norm": True},
    "prefix": {"decoder_prompt": True, "decoder_prompt_length": 3},
}


def answers(count: int = 60, seed: int = 0) -> list[list[int]]:
    """Lists of one to five tokens, many of which begin with another or as another does."""
    rng = random.Random(seed)
    found: dict[tuple[int, ...], None] = {(20, 21, 22, 23, 24): None, (20, 21, 22, 23, 25): None}
    while len(found) < count:
        start = rng.choice([(), (), *found])[: rng.randint(0, 4)]
        found[(*start, rng.randint(20, 40))] = None
    return [list(answer) for answer in found]


def batch_of(rows: int) -> tuple[dict[str, Tensor], list[list[int]]]:
    batch = mixed_batch((0, -1, 0, -1, -1)[:rows], compact=True)
    batch.pop("prev_output_tokens")
    return batch, PROMPTS[:rows]


@torch.no_grad()
def plain(model: Any, rows: int, candidates: list[list[int]], trie: Trie | None) -> Tensor:
    """Every answer of every row is a row of a forward pass; what the trie does not allow is masked."""
    batch, prompts = batch_of(rows)
    encoded = model.encoder(**batch)
    scores = torch.zeros(rows, len(candidates))
    for row, prompt in enumerate(prompts):
        targets = [[*prompt, *answer, 2] for answer in candidates]
        width = max(map(len, targets))
        inputs = torch.tensor([[0, *t[:-1]] + [1] * (width - len(t)) for t in targets])
        out = encoded.select(torch.tensor([row] * len(targets)))
        for number, (logits, target) in enumerate(zip(model.decoder(inputs, out)[0], targets, strict=True)):
            answer = target[len(prompt) :]
            logits = logits[len(prompt) : len(target)].float()
            if trie is not None:
                for j, allowed in enumerate(trie.allowed_lists(answer)):
                    logits[j, [t for t in range(VOCAB) if t not in allowed]] = -torch.inf
            scores[row, number] = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
    return scores


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("constrained", ["its own", "of more answers", "none"])
def test_equals_the_plain_computation(name: str, constrained: str) -> None:
    model = small_model(**MODELS[name])
    candidates = answers()
    trie = {"its own": Trie(candidates), "of more answers": Trie(answers(150)), "none": None}[constrained]
    expected = plain(model, 5, candidates, trie)
    tree = AnswerTree(candidates, trie)
    assert len({round(score, 2) for score in expected.flatten().tolist()}) > 100
    for rows in (1, 2, 5):
        batch, prompts = batch_of(rows)
        for chunk in (4, 23, 512) if rows > 1 else (1, 512):
            scores = rank_candidates(model, batch, tree, prompts, chunk=chunk)
            torch.testing.assert_close(scores, expected[:rows], atol=1e-5, rtol=0)  # measured 4e-6
            for count in (1, 3):
                found = rank_candidates(model, batch, tree, prompts, chunk=chunk, best=count)
                order = scores.argsort(descending=True, stable=True)[:, :count]
                assert found.argsort(descending=True, stable=True)[:, :count].equal(order)
                torch.testing.assert_close(found.gather(1, order), scores.gather(1, order), atol=1e-5, rtol=0)


def passes(model: Any, **settings: Any) -> int:
    """Prefixes that a ranking sends through the decoder."""
    seen, branch = [], model.decoder.branch
    batch, prompts = batch_of(2)

    def counted(tokens: Tensor, *rest: Any) -> Tensor:
        seen.append(tokens.numel())
        return branch(tokens, *rest)

    model.decoder.branch = counted
    try:
        rank_candidates(model, batch, answers(400), prompts, Trie(answers(400)), **settings)
    finally:
        del model.decoder.branch
    return sum(seen)


def test_a_sure_model_looks_at_few_prefixes_for_the_best() -> None:
    model = small_model()
    with torch.no_grad():
        model.decoder.layer_norm.weight.mul_(30)
        model.decoder.layer_norm.bias.mul_(30)
    assert passes(model, best=1) * 2 < passes(model)


def test_equal_answers_keep_their_order() -> None:
    candidates = [[30], [21, 22], [21, 23], [30], [21, 22]]
    batch, prompts = batch_of(2)
    full = rank_candidates(small_model(), batch, candidates, prompts, Trie(candidates))
    best = rank_candidates(small_model(), batch, candidates, prompts, Trie(candidates), best=1)
    assert full[:, 0].equal(full[:, 3]) and full[:, 1].equal(full[:, 4])
    assert best.argmax(1).equal(full.argmax(1))


def test_edges_of_lists() -> None:
    batch, prompts = batch_of(2)
    model = small_model()
    assert rank_candidates(model, batch, [[30, 31]], prompts, Trie([[30, 31]]), best=1).equal(
        torch.zeros(2, 1)
    )
    outside = rank_candidates(model, batch, [[30], [50]], prompts, Trie([[30], [31]]), best=2)
    assert outside[:, 1].eq(-torch.inf).all() and outside[:, 0].isfinite().all()
    for wrong in ([], [[30], [2]]):
        with pytest.raises(ConfigError, match="at least one candidate"):
            rank_candidates(model, batch, wrong, prompts)
    with pytest.raises(ConfigError, match="1 prompts do not fit a batch of 2"):
        rank_candidates(model, batch, [[30]], [[]])


def test_a_broken_model_comes_to_an_end() -> None:
    model = small_model()
    with torch.no_grad():
        model.decoder.layer_norm.bias.fill_(torch.nan)
    batch, prompts = batch_of(2)
    assert rank_candidates(model, batch, answers(), prompts, Trie(answers()), best=1).isfinite().sum() == 0
