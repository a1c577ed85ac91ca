"""A step of generation brings its candidates to the host, and asks nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from tests.support.model_fixtures import mixed_batch, small_model
from tests.support.stops import Stops
from unival.generate import Trie, generate
from unival.modeling import products

TRIE = Trie([[a, b, c] for a in (5, 6, 7) for b in (8, 9, 10) for c in (11, 12, 13)])
# Only asked where it saves a pass over the scores: on a CPU.
ON_CPU = "unival/generate/rows.py, log_probs: __bool__"
CASES: dict[str, dict[str, Any]] = {
    "beam": {},
    "one beam": {"beam": 1},
    "a shorter least length": {"min_len": 3, "unkpen": 0.5, "temperature": 0.7},
    "no repeats": {"no_repeat_ngram_size": 2},
    "a range": {"constraint_range": "4,90", "zero_shot": True},
    "samples": {"sampling": True, "sampling_topk": 20},
    "samples of a mass": {"sampling": True, "sampling_topp": 0.9, "beam": 2},
}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return small_model()


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of weights, which are compared with them, are for CPUs."""
    monkeypatch.setattr(products, "WAY", None)


def stops(model: torch.nn.Module, tokens: int, case: dict[str, Any], **inputs: Any) -> Counter[str]:
    source = mixed_batch((0, -1, 0))
    del source["prev_output_tokens"]
    with Stops() as found:
        generate(model, source, {"beam": 3, "min_len": tokens, **case, "max_len_b": tokens}, **inputs)
    del found.found[ON_CPU]
    return found.found


@pytest.mark.parametrize("name", CASES)
def test_one_stop_a_token(model: torch.nn.Module, name: str) -> None:
    case = CASES[name]
    step = "sample.py, _draw" if case.get("sampling") else "beam.py, _candidates"
    short, long = (stops(model, tokens, {"min_len": tokens, **case}) for tokens in (5, 8))
    assert long - short == {f"unival/generate/{step}: to_host": 3}
    assert short[f"unival/generate/{step}: to_host"] == 6, "five tokens and the end"


def test_a_trie_and_prefixes_ask_nothing_more(model: torch.nn.Module) -> None:
    prefixes = torch.tensor([[20, 21, 22], [20, 1, 1], [1, 1, 1]])
    for inputs in ({"prefix_tokens": prefixes}, {"prefix_tokens": prefixes, "constraint": TRIE}):
        found = stops(model, 7, {"min_len": 1}, **inputs)
        asked = {
            place for place in found if not place.startswith(("unival/generate/run.py", "unival/modeling/"))
        }
        assert asked == {"unival/generate/beam.py, _candidates: to_host"}


def test_a_batch_is_asked_before_the_first_token(model: torch.nn.Module) -> None:
    found = stops(model, 5, {})
    assert {place.split(",")[0] for place in found} == {
        "unival/generate/beam.py",
        "unival/generate/run.py",
        "unival/modeling/batch_facts.py",
    }
