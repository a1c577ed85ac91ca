"""Hypotheses, candidate scores and constraints against the reference (data/generation.json)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.rules import audio, build_options, image, set_generation_weights, video
from unival.generate import Trie, generate, rank_candidates
from unival.modeling.build import build_model

CASES = json.loads((Path(__file__).parent / "data/generation.json").read_text())["cases"]
SEARCHES = [name for name, case in CASES.items() if "settings" in case]
RANKINGS = [name for name in CASES if name.endswith("/all_candidates")]
FAILURES = [name for name, case in CASES.items() if "error" in case]
MAKERS = {"patch_images": image, "patch_videos": video, "patch_audios": audio}
# Scores here differ from the recorded ones by at most 1.3e-4 (sums of up to 200 log-probabilities).
TOLERANCE = 1e-3


@cache
def model() -> torch.nn.Module:
    return set_generation_weights(build_model("unival_base", **build_options("tiny"))).eval()


def net_input(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    out = {name: torch.tensor(values) for name, values in case["int_inputs"].items()}
    for name, spec in case["input_spec"].items():
        if isinstance(spec, list):
            out[name] = MAKERS[name](*spec[:2], *(spec[2:] if name == "patch_audios" else spec[3:]))
        elif spec.startswith("zeros"):
            out[name] = torch.zeros([int(n) for n in spec.split()[1].split(",")])
    return out


def arguments(name: str, case: dict[str, Any]) -> dict[str, Any]:
    settings = {k: v for k, v in case["settings"].items() if k != "prompt_type"}
    out: dict[str, Any] = {"settings": settings}
    trie = CASES.get(name.split("/")[0] + "/trie")
    if trie is not None:
        out["constraint"] = Trie(trie["answer_tokens"])
    if "prefix_tokens" in case:
        out["prefix_tokens"] = torch.tensor(case["prefix_tokens"], dtype=torch.int64)
    return out


@pytest.mark.parametrize("name", SEARCHES)
def test_hypotheses(name: str) -> None:
    case = CASES[name]
    assert case["stability_1_vs_2_threads"]["all_hypotheses_equal"]
    assert case["stability_float32_vs_float64"]["all_hypotheses_equal"]
    results = generate(model(), net_input(case), **arguments(name, case))
    assert len(results) == len(case["hypotheses"])
    for found, expected in zip(results, case["hypotheses"], strict=True):
        assert [h.tokens for h in found] == [h["tokens"] for h in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.score == pytest.approx(theirs["score"], abs=TOLERANCE)
            assert ours.positional_scores == pytest.approx(theirs["positional_scores"], abs=TOLERANCE)


@pytest.mark.parametrize("name", FAILURES)
def test_fewer_hypotheses_than_beams(name: str) -> None:
    """The reference stops with an assertion; here the three answers there are come back."""
    kind = name.split("/")[1]
    inputs = CASES[f"snli_ve/{kind}/beam5_unnormalized"]
    settings = {"settings": {"beam": 5, "temperature": 1.0}}
    case = {**inputs, **CASES[name], **settings}
    results = generate(model(), net_input(case), **arguments(name, case))
    answers = [[*a, 2] for a in CASES["snli_ve/trie"]["answer_tokens"]]
    prefixes = [[t for t in row if t != 1] for row in case["prefix_tokens"]]
    for found, expected, prefix in zip(results, inputs["hypotheses"], prefixes, strict=True):
        assert sorted(h.tokens[len(prefix) :] for h in found) == sorted(answers)
        # same sequences as without normalisation, scores divided by the length
        assert {tuple(h.tokens) for h in found} == {tuple(h["tokens"]) for h in expected}
        wanted = {tuple(h["tokens"]): h["score"] / len(h["tokens"]) for h in expected}
        assert all(h.score == pytest.approx(wanted[tuple(h.tokens)], abs=TOLERANCE) for h in found)


@pytest.mark.parametrize("chunk", [1, 7, 128])
@pytest.mark.parametrize("name", RANKINGS)
def test_all_candidates(name: str, chunk: int) -> None:
    case = CASES[name]
    source = [[t for t in row if t != 1] for row in case["int_inputs"]["src_tokens"]]
    prompts = {
        "none": [[] for _ in source],
        "src": [row[1:] for row in source],
        "prev_output": [row[1:-1] for row in source],
    }[case["prompt_type"]]
    if name.startswith("snli_ve"):
        searched = CASES[name.replace("all_candidates", "beam5_unnormalized")]
        prompts = [[t for t in row if t != 1] for row in searched["prefix_tokens"]]
    trie = Trie(case["answer_tokens"])
    scores = rank_candidates(model(), net_input(case), case["answer_tokens"], prompts, trie, chunk)
    torch.testing.assert_close(scores, torch.tensor(case["scores"]), atol=TOLERANCE, rtol=0)
    assert [case["answers"][i] for i in scores.argmax(1)] == case["predicted"]
