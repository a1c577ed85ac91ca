"""Self-critical training in real runs: statistics, losses, refusals, two ranks, resuming."""

from __future__ import annotations

import math
import re

import pytest

from tests.integration.plugin.test_distributed import EXACT, two_ranks
from tests.integration.plugin.test_resume import resumed
from tests.support.checks import refused, weights

SAMPLING = '--scst-args={"sampling": true, "beam": 3, "max_len_b": 8, "no_repeat_ngram_size": 0}'
# what this network's random features make the model say has words of the references
CAPTION = ("--criterion=scst_reward_criterion", "--scst", SAMPLING, "--resnet-type=resnet18")
# as in the rewarded-soup scripts
GROUNDING = (
    "--criterion=refcoco_scst_reward_criterion",
    "--scst",
    '--scst-args={"beam":5,"min_len":4,"max_len_a":0,"max_len_b":4}',
    "--acc-thresh=0.5",
    "--metric=acc",
)


@pytest.fixture
def data(tables):
    return lambda name: [tables / f"{name}_train.tsv", tables / f"{name}_val.tsv"]


def logged(run, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf"\b{name}=([-\d.e]+)", run.text)]


@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_captions(train, data, baseline):
    run = train("caption", data("caption"), *CAPTION, f"--scst-baseline={baseline}", "--max-update=3").ok()
    assert "CIDEr-D rewards:" in run.text and "46 items (corpus)" in run.text
    assert len(run.losses()) == 3 and all(math.isfinite(loss) for loss in run.losses())
    low, mean, high = (logged(run, name) for name in ("reward_min", "reward", "reward_max"))
    assert len(mean) == 3 and all(a <= b <= c for a, b, c in zip(low, mean, high, strict=True))
    assert max(logged(run, "reward_std")) > 0 and max(high) > 0
    shares = logged(run, "zero_advantage")
    assert all(0 <= share <= 1 for share in shares) and min(shares) < 1
    assert [r["reward"] for r in run.records if r["split"] == "train"] == pytest.approx(mean)
    # validation reports the cross entropy of the targets and the task's metric
    assert run.scores()[-1]["loss"] > 1 and "cider" in run.scores()[-1]


def test_losses_of_grounding(train, data):
    """The first loss of each variant in terms of the others': the same batch, weights and boxes."""
    first = ("--max-update=1", "--dropout=0", "--disable-validation", "--lr=0.01")

    def loss(name: str, *options: str) -> float:
        return train("refcoco", data("grounding"), *options, *first, name=name).ok().losses()[0]

    entropy = loss("entropy", "--label-smoothing=0.1")
    plain = loss("plain")
    # boxes of random weights hit nothing: their reward of 0 is replaced
    policy = loss("policy", *GROUNDING, "--neg-reward=0.5")
    both = loss("both", *GROUNDING, "--neg-reward=0.5", "--lambda-reinforce=5.0")
    # sums over rows: a target has five tokens, a generated box four, which are the sample size
    assert both == pytest.approx(plain * 5 / 4 + 5 * policy, abs=0.005)
    behind = loss(
        "behind", *GROUNDING, "--neg-reward=0.5", "--lambda-reinforce=5.0", "--reinforce-prefix=generated"
    )
    assert math.isfinite(behind) and behind != both
    weighted = ("--criterion=adjust_label_smoothed_cross_entropy_scst", "--label-smoothing=0.1")
    assert loss("ones", *weighted, "--neg-reward=1") == pytest.approx(entropy, abs=0.0011)
    assert loss("zeros", *weighted) == 0
    likely = ("--logprob", "--reinforce", "--lambda-reinforce=2", "--neg-reward=0.5")
    assert loss("likely", *weighted, *likely) == pytest.approx(2 * plain, abs=0.0021)


@pytest.mark.parametrize("precision", ["--bf16", "--bf16 --memory-efficient-bf16"])
def test_reduced_precision(train, data, precision):
    run = train(
        "refcoco", data("grounding"), *GROUNDING, "--neg-reward=0.1", *precision.split(), "--max-update=2"
    )
    assert all(math.isfinite(loss) for loss in run.ok().losses())


def test_two_ranks_equal_one(train, data):
    """Outputs are drawn by (seed, update, row), rewards use one corpus, losses are joined."""
    one = train("caption", data("caption"), *CAPTION, *EXACT, "--update-freq=2", name="one").ok()
    two = two_ranks(train, "caption", data("caption"), *CAPTION, *EXACT, "--ddp-backend=legacy_ddp")
    assert len(one.losses()) == len(two.losses()) == 8
    assert two.losses() == pytest.approx(one.losses(), abs=0.0011)
    for name in ("reward", "reward_std", "reward_min", "reward_max", "zero_advantage"):
        assert logged(two, name) == pytest.approx(logged(one, name), abs=1.1e-4), name
    assert max(logged(one, "reward")) > 0
    ours, theirs = weights(one.folder)["model"], weights(two.folder)["model"]
    gap = max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in ours if ours[k].numel())
    assert gap < 1e-6


def test_a_killed_run_resumes_exactly(train, data):
    resumed(train, "caption", data("caption"), *CAPTION)


def test_a_run_without_rewards_stops(train, data):
    run = train("refcoco", data("grounding"), *GROUNDING, "--scst-patience=3", "--max-update=20")
    refused(run, "all rewards of the last 3 updates are zero", "lower --acc-thresh", "--scst-patience 3")
    assert len(run.losses()) == 3
    equal = ("--neg-reward=1", "--scst-baseline=others", "--scst-samples=2", "--max-update=9")
    ranks = ("--scst-patience=2", "--ddp-backend=legacy_ddp")
    refused(
        two_ranks(train, "refcoco", data("grounding"), *GROUNDING, *equal, *ranks, code=2),
        "no output was better or worse than its baseline",
        "--scst-args with sampling",
    )


def test_refusals(train, data):
    refused(train("caption", data("caption"), "--scst", "--max-update=1"), "choose a self-critical criterion")
    refused(train("caption", data("caption"), SAMPLING, "--max-update=1", name="args"), "--scst-args")
    refused(train("vqa_gen", data("vqa"), *CAPTION, name="task"), "task 'vqa' is none of them")
    refused(
        train(
            "caption",
            data("caption"),
            "--criterion=scst_reward_criterion",
            '--scst-args={"beams": 2}',
            name="b",
        ),
        "Did you mean 'beam'",
    )
