"""The exchange of gradients beside the backward pass gives what the one behind it gives (``legacy_ddp``)."""

from __future__ import annotations

import json

import pytest

from tests.integration.plugin.test_launch import free_port, ranks_of


@pytest.fixture
def found(runner, tmp_path):
    """Return run(what, world) -> what rank 0 of ``tests/support/exchange.py`` found."""

    def run(what: str, world: int = 2) -> list[dict]:
        started = [
            runner.start([what], tmp_path, env, program="tests.support.exchange")
            for env in ranks_of(free_port(), world)
        ]
        first, *_ = [one.finish().ok() for one in started]
        return [json.loads(line) for line in first.out.splitlines() if line.startswith("{")]

    return run


@pytest.mark.parametrize(("what", "world"), [("float32", 2), ("bf16", 2), ("float32", 3)])
def test_updates_of_a_mixture(found, what, world):
    """Ranks with other networks in an update, networks that no rank uses, two passes, text alone, a lost loss."""
    made = found(what, world)
    everything = ["audios", "images", "videos"]
    networks = [everything, ["images", "videos"], everything, [], everything, ["audios", "videos"]]
    assert [facts["networks"] for facts in made] == networks[: len(made)]
    for facts in made:
        assert facts["alike_in_having_one"] and facts["alike_in_layout"]
        if world == 2:  # the sum of two numbers has one order
            assert facts["gaps"] == {} and facts["weights_equal"]
    # the order of three depends on the place in what travels; behind a step, the weights differ too
    assert all(gap < 1e-6 for gap in made[0]["gaps"].values())  # measured 1e-7


def test_batch_norm_of_a_bf16_model_travels_in_float32(found):
    """``legacy_ddp`` sends all gradients in the type of the first parameter."""
    (facts,) = found("bf16 with BatchNorm")
    assert facts["unequal_types"] == ["torch.float32"]
    # it rounds those of each process, whose sum may be smaller than they are; measured 0.0046
    assert {name: gap for name, gap in facts["gaps"].items() if not gap < 2**-7} == {}


def test_a_rank_without_memory_for_its_pass_leaves_the_update_out_everywhere(found):
    before, within, earlier, after = found("given up")
    assert before == within == earlier == {"left": [], "statistics": [2.0, 2.0, 2.0]}
    assert after["gaps"] == {} and after["alike_in_having_one"]


def test_buckets_leave_while_the_backward_pass_goes_on(found):
    (facts,) = found("sending")
    assert all(share > 0.6 for share in facts["sent"]), facts
    assert "outside no_sync()" in facts["again"]


def test_all_ranks_begin_with_the_weights_of_the_first(found):
    assert found("beginning") == [{"alike": True}]
