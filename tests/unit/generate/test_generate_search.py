"""Beam search and sampling against exhaustive enumeration, and the settings' refusals."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from unival.errors import ConfigError
from unival.generate import GenerationSettings, Trie, generate
from unival.modeling.build import build_model

V = 8
SOURCE = {"src_tokens": torch.tensor([[0, 4, 5, 2]]), "src_lengths": torch.tensor([4])}
TOKENS = [0, 3, 4, 5, 6, 7]  # all but pad and eos


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(5)
    built = build_model(
        "unival_tiny",
        vocab_size=V,
        encoder_embed_dim=16,
        decoder_embed_dim=16,
        encoder_ffn_embed_dim=32,
        decoder_ffn_embed_dim=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        image_encoder_name="none",
        code_image_size=32,
    ).eval()
    with torch.no_grad():
        built.encoder.embed_tokens.weight.mul_(20)
    return built


def enumerate_all(model: torch.nn.Module, longest: int) -> dict[tuple[int, ...], float]:
    """Score of every sequence of 1..longest tokens and eos, by the forward pass."""
    scores: dict[tuple[int, ...], float] = {}
    for length in range(1, longest + 1):
        sequences = torch.tensor([[*s, 2] for s in itertools.product(TOKENS, repeat=length)])
        inputs = torch.cat([torch.zeros(len(sequences), 1, dtype=torch.long), sequences[:, :-1]], 1)
        source = {k: v.expand(len(inputs), *v.shape[1:]) for k, v in SOURCE.items()}
        with torch.no_grad():
            logits, _ = model(prev_output_tokens=inputs, **source)
        log_probs = torch.log_softmax(logits, -1).gather(2, sequences.unsqueeze(2)).squeeze(2).sum(1)
        scores.update({tuple(s): p for s, p in zip(sequences.tolist(), log_probs.tolist(), strict=True)})
    return scores


@pytest.mark.parametrize("lenpen", [None, 1.0, 0.3])
def test_wide_beam_is_exhaustive(model: torch.nn.Module, lenpen: float | None) -> None:
    everything = enumerate_all(model, 3)
    extra: dict[str, Any] = {"unnormalized": True} if lenpen is None else {"lenpen": lenpen}
    found = generate(model, SOURCE, {"beam": 258, "max_len_b": 3, **extra})[0]
    assert len(everything) == len(found) == 6 + 36 + 216
    for h in found:
        expected = everything[tuple(h.tokens)] / (1 if lenpen is None else len(h.tokens) ** lenpen)
        assert h.score == pytest.approx(expected, abs=1e-4)
        assert sum(h.positional_scores) == pytest.approx(everything[tuple(h.tokens)], abs=1e-4)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_sampling_follows_the_distribution(model: torch.nn.Module) -> None:
    """Shares of 2000 samples against the exact probabilities; standard error at most 0.011."""
    settings = {"beam": 2000, "sampling": True, "max_len_b": 2, "unnormalized": True}
    drawn = [tuple(h.tokens) for h in generate(model, SOURCE, settings)[0]]
    with torch.no_grad():
        logits, _ = model(prev_output_tokens=torch.tensor([[0]]), **SOURCE)
    first = torch.log_softmax(logits[0, 0], -1)
    first[[1, 2]] = -torch.inf  # pad, and eos by min_len 1
    first = first.exp() / first.exp().sum()
    for token in TOKENS:
        share = sum(tokens[0] == token for tokens in drawn) / len(drawn)
        assert share == pytest.approx(first[token].item(), abs=0.045)
    best = generate(model, SOURCE, {**settings, "sampling_topk": 1, "beam": 3})[0]
    greedy = generate(model, SOURCE, {"beam": 1, "max_len_b": 2})[0][0]
    assert {tuple(h.tokens) for h in best} == {tuple(greedy.tokens)}
    narrow = generate(model, SOURCE, {**settings, "sampling_topp": 1e-6, "beam": 3})[0]
    assert {tuple(h.tokens) for h in narrow} == {tuple(greedy.tokens)}


def test_unknown_symbol_penalty(model: torch.nn.Module) -> None:
    plain = generate(model, SOURCE, {"beam": 258, "max_len_b": 3, "unnormalized": True})[0]
    wanted = {tuple(h.tokens): h.score - 1.5 * h.tokens.count(3) for h in plain}
    for h in generate(model, SOURCE, {"beam": 258, "max_len_b": 3, "unnormalized": True, "unkpen": 1.5})[0]:
        assert h.score == pytest.approx(wanted[tuple(h.tokens)], abs=1e-4)


def test_limits_and_blocking(model: torch.nn.Module) -> None:
    for n in (1, 2, 3):
        found = generate(
            model, SOURCE, {"beam": 4, "max_len_b": 12, "min_len": 4, "no_repeat_ngram_size": n}
        )[0]
        for h in found:
            tokens = [0, *h.tokens]
            grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
            assert len(grams) == len(set(grams))
            assert len(h.tokens) >= 5 or n == 1
    assert [len(h.tokens) for h in generate(model, SOURCE, {"beam": 2, "max_len_b": 0})[0]] == [1]
    forced = generate(model, SOURCE, {"beam": 2, "max_len_b": 2}, prefix_tokens=torch.tensor([[4, 5, 6]]))[0]
    assert [h.tokens for h in forced] == [[4, 5, 2]]


def test_prefix_that_ends(model: torch.nn.Module) -> None:
    for extra in ({}, {"sampling": True}):
        found = generate(model, SOURCE, {"beam": 3, **extra}, prefix_tokens=torch.tensor([[4, 5, 2]]))[0]
        assert [h.tokens for h in found] == [[4, 5, 2]] * 3


def test_prefix_is_not_blocked(model: torch.nn.Module) -> None:
    """A prompt that repeats itself stays as given; the reference loses all its beams here."""
    prefix = torch.tensor([[4, 5, 4, 5, 4]])
    found = generate(
        model, SOURCE, {"beam": 3, "max_len_b": 9, "no_repeat_ngram_size": 2}, prefix_tokens=prefix
    )
    assert found[0]
    for h in found[0]:
        assert h.tokens[:5] == [4, 5, 4, 5, 4]
        assert h.tokens[5] != 5


def test_too_few_hypotheses(model: torch.nn.Module) -> None:
    trie = Trie([[4], [5, 6]])
    assert len(generate(model, SOURCE, {"beam": 4}, trie)[0]) == 2
    with pytest.raises(ConfigError, match="only 2 of 4 hypotheses"):
        generate(model, SOURCE, {"beam": 4, "stop_on_max_len": False}, trie)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 3}, "Did you mean 'beam'"),
        ({"beam": 0}, "beam 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"sampling_topk": 3}, "need sampling"),
        ({"sampling": True, "sampling_topk": 3, "sampling_topp": 0.5}, "exclude"),
        ({"sampling": True, "sampling_topp": 1.5}, "sampling_topp"),
        ({"constraint_range": "a,b"}, "constraint range"),
        ({"constraint_range": "9,5"}, "constraint range"),
        ({"constraint_range": "5,500"}, "beyond the vocabulary"),
    ],
)
def test_refused_settings(model: torch.nn.Module, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(model, SOURCE, settings)


def test_refused_combinations(model: torch.nn.Module) -> None:
    with pytest.raises(ConfigError, match="exclude"):
        generate(model, SOURCE, {"constraint_range": "5,7"}, Trie([[5]]))
    with pytest.raises(ConfigError, match="two vocabulary ranges"):
        generate(model, SOURCE, {"constraint_range": "5,7"}, "4,7")
    with pytest.raises(ConfigError, match="prefix tokens"):
        generate(model, SOURCE, {}, prefix_tokens=torch.tensor([[4], [5]]))
    with pytest.raises(ConfigError, match="constraint range"):
        generate(model, SOURCE, {}, (2, 7))
    assert GenerationSettings.of({"beam_size": 3}).beam == 3
