"""Updates that jump are left out or undone, equally on all processes and in a run that goes on."""

from __future__ import annotations

import json
import re

import pytest
import torch

from tests.support.checks import refused, same, weights
from tests.support.plugin_runs import two_ranks
from unival.tasks.spikes import Series, Snapshot, Spikes, changing

# a learning rate that does not depend on the number of updates: runs of several lengths have the same beginning
FIXED = ("--lr-scheduler=fixed", "--lr=1e-3", "--warmup-ratio=0", "--disable-validation", "--batch-size=2")


def poisoned(tables, tmp_path, rows=(5,)):
    """Two tables of 44 rows, one for each epoch; in the second some answers count a thousand times as much."""
    lines = (tables / "vqa_train.tsv").read_text().splitlines()[:44]
    low = [re.sub(r"[\d.]+\|!\+", "0.001|!+", line) for line in lines]
    bad = [lines[n] if n in rows else line for n, line in enumerate(low)]
    places = [tmp_path / "clean.tsv", tmp_path / "poisoned.tsv"]
    for place, content in zip(places, (low, bad), strict=True):
        place.write_text("\n".join(content) + "\n")
    return [*places, tables / "vqa_val.tsv"], [bad[n].split("\t")[0] for n in rows]


def jumps(run):
    return [json.loads(line) for line in (run.folder / "spikes.jsonl").read_text().splitlines()]


def moments(folder):
    return {
        f"{number}.{name}": value
        for number, values in weights(folder)["last_optimizer_state"]["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def test_an_update_with_a_poisoned_row_leaves_no_trace(train, tables, tmp_path):
    data, [bad] = poisoned(tables, tmp_path)
    run = train("vqa_gen", data, *FIXED, "--max-epoch=2", "--on-spike=skip").ok()
    [jump] = jumps(run)
    update = jump["update"]
    assert 22 < update <= 44 and bad in jump["rows"] and len(jump["rows"]) == 2
    assert jump["left_out"] == [update, update] and jump["value"] > 100 * jump["median"]
    assert f"update {update}: its " in run.out and f"update {update} is left out (1 so far)" in run.out
    [batch] = torch.load(run.folder / f"offending_update{update}_rank0.pt", weights_only=True)
    assert bad in batch["id"]
    with_it = train("vqa_gen", data, *FIXED, f"--max-update={update}", "--on-spike=skip", name="with").ok()
    before = train("vqa_gen", data, *FIXED, f"--max-update={update - 1}", name="before").ok()
    same(weights(with_it.folder)["model"], weights(before.folder)["model"])  # statistics of BatchNorm as well
    same(moments(with_it.folder), moments(before.folder))
    through = train("vqa_gen", data, *FIXED, f"--max-update={update}", name="through").ok()
    norm = "encoder.embed_images.bn1.running_var"
    assert not torch.equal(weights(through.folder)["model"][norm], weights(before.folder)["model"][norm])


def test_rolling_back_undoes_the_updates_since_the_last_good_state(train, tables, tmp_path):
    data, [bad] = poisoned(tables, tmp_path)
    options = (*FIXED, "--on-spike=rollback", "--rollback-interval=4")
    run = train("vqa_gen", data, *options, "--max-epoch=2").ok()
    [jump] = jumps(run)
    first, update = jump["left_out"]
    assert first == (update - 1) // 4 * 4 + 1 and bad in jump["rows"]
    undone = train("vqa_gen", data, *options, f"--max-update={update}", name="undone").ok()
    good = train("vqa_gen", data, *FIXED, f"--max-update={first - 1}", name="good").ok()
    same(weights(undone.folder)["model"], weights(good.folder)["model"])
    same(moments(undone.folder), moments(good.folder))


@pytest.mark.parametrize("interval", [4, 7])
def test_a_run_that_goes_on_rolls_back_to_the_same_state(train, tables, tmp_path, interval):
    """In reduced precision, with accumulation and averaged weights; stopped between the good state and the jump."""
    data, _ = poisoned(tables, tmp_path, rows=(5, 40))
    options = (
        *FIXED,
        *("--bf16", "--batch-size=1", "--update-freq=2", "--store-ema", "--ema-fp32", "--dropout=0.1"),
        *("--on-spike=rollback", f"--rollback-interval={interval}", "--max-epoch=2"),
    )
    whole = train("vqa_gen", data, *options, name="whole").ok()
    update = jumps(whole)[0]["update"]
    options = (*options, f"--save-interval-updates={update - 2}", "--keep-interval-updates=1")
    train("vqa_gen", data, *options, name="parts", start=True).kill_after(update - 1)
    parts = train("vqa_gen", data, *options, name="parts").ok()
    assert (
        "Loaded checkpoint" in parts.text
        and jumps(parts) == jumps(whole)
        and parts.losses() == whole.losses()
    )
    one, other = weights(whole.folder), weights(parts.folder)
    same(one["model"], other["model"])
    same(one["extra_state"]["ema"], other["extra_state"]["ema"])
    for own, theirs in zip(*(c["extra_state"]["master_weights"] for c in (one, other)), strict=True):
        assert torch.equal(own, theirs)
    same(moments(whole.folder), moments(parts.folder))


def test_two_ranks_decide_as_one(train, tables, tmp_path):
    data, [bad] = poisoned(tables, tmp_path)
    exact = (
        *FIXED,
        "--dropout=0",
        "--freeze-batchnorm",
        "--max-epoch=2",
        "--on-spike=rollback",
        "--rollback-interval=6",
    )
    one = train("vqa_gen", data, *exact, name="one").ok()
    two = two_ranks(train, "vqa_gen", data, *exact, "--batch-size=1")
    [alone], [together] = jumps(one), jumps(two)
    assert bad in alone["rows"] and set(alone["rows"]) == set(together["rows"])
    assert alone["left_out"] == together["left_out"] and two.losses() == pytest.approx(
        one.losses(), abs=0.0011
    )
    ours, theirs = weights(one.folder)["model"], weights(two.folder)["model"]
    assert (
        max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in ours if ours[k].numel())
        < 1e-6
    )


def test_a_run_that_does_not_settle_stops(train, tables, tmp_path):
    data, _ = poisoned(tables, tmp_path, rows=range(44))
    options = ("--on-spike=skip", "--max-spikes=4", "--stagnation=2")
    run = train("vqa_gen", data, *FIXED, "--max-epoch=2", *options)
    refused(run, "Stopped after 4 such updates (--max-spikes 4)", "with --on-spike rollback")
    assert [jump["update"] for jump in jumps(run)] == [23, 24, 25, 26]
    assert "gnorm is 0 since update 23, exactly" in run.out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--on-spike=undo", "'undo' is not one of skip, rollback"),
        ("--spike-deviations=0", "0.0 must be above 0"),
        ("--max-spikes=0", "0 must be at least 1"),
    ],
)
def test_odd_options(train, tables, option, said):
    refused(train("caption", [tables / "caption_train.tsv", tables / "caption_val.tsv"], option), said)


def test_a_jump_is_told_from_ripples_and_earlier_jumps():
    series = Series()
    for n in range(20):
        assert series.above(100.0) == 0  # too few before
        series.values.append(2.0 + 0.1 * (n % 3))
    assert series.above(2.3) < 2 < 10 < series.above(3.6)
    series.values.append(1000.0)  # one that was not told
    assert series.above(3.6) > 10
    flat = Series()
    flat.values.extend([1.0] * 20)
    assert flat.above(1.4) == pytest.approx(8) and flat.above(0.1) < 0
    rewards = Series()  # a loss of rewards lies around 0
    rewards.values.extend([-0.02, 0.02, 0.01, -0.01] * 5)
    assert rewards.above(0.05) < 10 < rewards.above(0.5)


def test_what_jumped_is_not_remembered():
    spikes = Spikes("skip", 10.0)
    for _ in range(20):
        assert spikes.jump({"gradient norm": 1.0, "loss": 2.0}) is None
    jump = spikes.jump({"gradient norm": 1.0, "loss": 9.0})
    assert jump is not None and (jump.name, jump.value, jump.median) == ("loss", 9.0, 2.0)
    assert len(spikes.series["gradient norm"].values) == 20 and spikes.count == 1
    other = Spikes("skip", 10.0)
    other.restore(json.loads(json.dumps(spikes.state())))
    assert other.jump({"gradient norm": 9.0}) is not None and other.count == 2
    assert Spikes(None, 10.0).jump({"loss": 1e9}) is None


def test_a_snapshot_holds_tied_tensors_once_and_brings_all_back():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    model[0].weight.requires_grad_()
    tied = torch.nn.ModuleList([model, model[0]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        tied[0](torch.randn(8, 3)).square().sum().backward()
        optimizer.step()

    step()
    tensors = changing(tied)
    assert len(tensors) == len(list(model.parameters())) + 3
    snapshot = Snapshot.of(1, tensors, optimizer)
    before = [value.clone() for value in tensors]
    step()
    step()
    optimizer.param_groups[0]["lr"] = 0.5
    snapshot.restore(tensors, optimizer)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert all(float(state["step"]) == 1 for state in optimizer.state_dict()["state"].values())
