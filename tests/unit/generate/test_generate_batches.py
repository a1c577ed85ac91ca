"""A row's hypotheses depend on that row alone, whatever else is in the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unival.generate import GenerationSettings, Hypothesis, Trie, generate, rank_candidates
from unival.modeling.build import build_model

V = 60
SOURCES = [[0, 11, 12, 13, 14, 2], [0, 21, 2], [0, 31, 32, 33, 2], [0, 41, 42, 43, 44, 45, 46, 2]]
PREFIXES = [[7, 8], [], [9], [10, 11, 12]]
TYPES = [0, 1, -1, 0]
ANSWERS = [[5], [5, 6], [20, 21, 22], [20, 21, 23], [30], [31, 32]]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(3)
    built = build_model(
        "unival_tiny",
        vocab_size=V,
        encoder_embed_dim=32,
        decoder_embed_dim=32,
        encoder_ffn_embed_dim=64,
        decoder_ffn_embed_dim=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        resnet_type="resnet18",
        video_encoder_name="all_resnext18",
        code_image_size=32,
    ).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "embed_tokens" in name:
                parameter.mul_(15)
            elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
                parameter.mul_(12)
        bias = built.decoder.layer_norm.bias.normal_()
        built.encoder.embed_tokens.weight[2] += 3 * bias / bias.square().sum()  # so that sequences end
    return built


def rows(*numbers: int) -> dict[str, torch.Tensor]:
    """The net_input of some of the four rows; images and videos come compact."""
    width = max(len(SOURCES[i]) for i in numbers)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=generator)
    videos = torch.randn(4, 3, 2, 32, 32, generator=generator)
    out = {
        "src_tokens": torch.tensor([SOURCES[i] + [1] * (width - len(SOURCES[i])) for i in numbers]),
        "src_lengths": torch.tensor([len(SOURCES[i]) for i in numbers]),
        "patch_types": torch.tensor([TYPES[i] for i in numbers]),
    }
    pictured = [i for i in numbers if TYPES[i] == 0]
    filmed = [i for i in numbers if TYPES[i] == 1]
    if pictured:
        out["patch_images"] = images[pictured]
    if filmed:
        out["patch_videos"] = videos[filmed]
    return out


def prefixes(*numbers: int) -> torch.Tensor:
    width = max(len(PREFIXES[i]) for i in numbers)
    return torch.tensor([PREFIXES[i] + [1] * (width - len(PREFIXES[i])) for i in numbers]).reshape(
        len(numbers), width
    )


def same(one: list[Hypothesis], two: list[Hypothesis]) -> None:
    assert [h.tokens for h in one] == [h.tokens for h in two]
    for a, b in zip(one, two, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4)  # measured 4e-6


CASES: dict[str, dict[str, Any]] = {
    "beam": {"beam": 4, "max_len_b": 8},
    "beam_len_a": {"beam": 3, "max_len_a": 0.6, "max_len_b": 2, "unnormalized": True},
    "blocked": {"beam": 3, "max_len_b": 10, "no_repeat_ngram_size": 2, "min_len": 4},
    "greedy": {"beam": 1, "max_len_b": 8},
    "range": {"beam": 3, "max_len_b": 6, "constraint_range": "20,40"},
    "sampling": {"beam": 3, "max_len_b": 8, "sampling": True, "temperature": 1.5},
    "topk": {"beam": 3, "max_len_b": 8, "sampling": True, "sampling_topk": 5},
    "topp": {"beam": 2, "max_len_b": 8, "sampling": True, "sampling_topp": 0.8},
    "codes": {"beam": 3, "min_len": 5, "max_len_b": 5, "gen_code": True, "constraint_range": "20,40"},
    "trie": {"beam": 4, "max_len_b": 8},
    "trie_zero_shot": {"beam": 4, "max_len_b": 8, "zero_shot": True},
}


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_batch_equals_single_rows(model: torch.nn.Module, name: str, prefixed: bool) -> None:
    settings = GenerationSettings.of(CASES[name])
    trie = Trie(ANSWERS) if name.startswith("trie") else None

    def run(*numbers: int) -> list[list[Hypothesis]]:
        given = prefixes(*numbers) if prefixed else None
        return generate(model, rows(*numbers), settings, trie, given)

    singles = [run(i)[0] for i in range(4)]
    for order in ([0, 1, 2, 3], [3, 1, 0], [2, 2, 0]):
        for found, number in zip(run(*order), order, strict=True):
            same(found, singles[number])
    for number, found in enumerate(singles):
        assert found
        assert all(h.tokens[-1] == 2 and 2 not in h.tokens[:-1] for h in found)
        if prefixed:
            given = PREFIXES[number]
            assert all(h.tokens[: len(given)] == given for h in found)
    assert len({round(found[0].score, 3) for found in singles}) > 1  # the input matters
    if name == "beam":
        assert len({len(h.tokens) for found in singles for h in found}) > 1  # and sequences end by themselves


def test_a_longer_range_of_samples_keeps_the_first(model: torch.nn.Module) -> None:
    few = generate(model, rows(0), {"beam": 2, "sampling": True, "max_len_b": 6, "temperature": 2.0})[0]
    many = generate(model, rows(0), {"beam": 6, "sampling": True, "max_len_b": 6, "temperature": 2.0})[0]
    assert {tuple(h.tokens) for h in few} <= {tuple(h.tokens) for h in many}
    other = generate(
        model, rows(0), {"beam": 6, "sampling": True, "max_len_b": 6, "temperature": 2.0, "seed": 2}
    )
    assert [h.tokens for h in other[0]] != [h.tokens for h in many]
    keyed = generate(
        model, rows(0, 0), {"beam": 6, "sampling": True, "max_len_b": 6, "temperature": 2.0}, row_keys=[1, 2]
    )
    assert [h.tokens for h in keyed[0]] != [h.tokens for h in keyed[1]]


def test_ranking_of_a_batch_equals_single_rows(model: torch.nn.Module) -> None:
    trie = Trie(ANSWERS)
    for constraint in (trie, None):
        batch = rank_candidates(model, rows(0, 1, 2, 3), ANSWERS, PREFIXES, constraint)
        for i in range(4):
            single = rank_candidates(model, rows(i), ANSWERS, [PREFIXES[i]], constraint, chunk=2)
            torch.testing.assert_close(batch[i : i + 1], single, atol=1e-4, rtol=0)
    outside = rank_candidates(model, rows(0), [[50]], [[]], trie)
    assert outside.item() == -torch.inf


def test_ranking_equals_the_forward_pass(model: torch.nn.Module) -> None:
    """Unconstrained: teacher forcing over the whole vocabulary. Constrained: what search finds."""
    scores = rank_candidates(model, rows(0), ANSWERS, [PREFIXES[0]])
    for answer, score in zip(ANSWERS, scores[0], strict=True):
        target = [*PREFIXES[0], *answer, 2]
        inputs = torch.tensor([[0, *target[:-1]]])
        logits, _ = model(prev_output_tokens=inputs, **rows(0))
        log_probs = torch.log_softmax(logits.float(), -1)[0].gather(1, torch.tensor(target)[:, None])
        assert score.item() == pytest.approx(log_probs[len(PREFIXES[0]) :].sum().item(), abs=1e-4)
    trie = Trie(ANSWERS)
    ranked = rank_candidates(model, rows(0), ANSWERS, constraint=trie)[0]
    found = generate(model, rows(0), {"beam": len(ANSWERS), "unnormalized": True}, trie)[0]
    assert {tuple(h.tokens[:-1]) for h in found} == {tuple(a) for a in ANSWERS}
    for h in found:
        assert ranked[ANSWERS.index(h.tokens[:-1])].item() == pytest.approx(h.score, abs=1e-4)


def test_a_model_in_training_stays_in_training(model: torch.nn.Module) -> None:
    evaluated = generate(model, rows(0), {"beam": 2, "max_len_b": 5})[0]
    model.train()
    try:
        same(generate(model, rows(0), {"beam": 2, "max_len_b": 5})[0], evaluated)
        assert model.training
    finally:
        model.eval()
    empty = {"src_tokens": torch.zeros(0, 3, dtype=torch.long)}
    assert generate(model, empty) == []
