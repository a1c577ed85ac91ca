"""Two processes do what one does: equal losses, weights and scores, every row once."""

from __future__ import annotations

import pytest
import torch
import yaml

from tests.support.checks import refused, same, weights
from tests.support.plugin_runs import two_ranks

EXACT = ("--dropout=0", "--freeze-batchnorm", "--max-epoch=2", "--batch-size=7", "--batch-size-valid=2")


# 46 rows in batches of 7: the last step of the second rank has no rows of its own.
@pytest.mark.parametrize(("backend", "accumulate"), [("legacy_ddp", 1), ("legacy_ddp", 2), ("c10d", 1)])
def test_two_ranks_equal_one(train, tables, backend, accumulate):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    # a network that no row uses, as in a finetuning from the second stage
    unused = ("--audio-encoder-name=pann_cnn6", "--weight-decay=0.1")
    one = train("caption", data, *EXACT, *unused, f"--update-freq={2 * accumulate}", name="one").ok()
    two = two_ranks(
        train, "caption", data, *EXACT, *unused, f"--update-freq={accumulate}", f"--ddp-backend={backend}"
    )
    assert len(one.losses()) == len(two.losses()) == (8 if accumulate == 1 else 4)
    assert two.losses() == pytest.approx(one.losses(), abs=0.0011)  # the log has three digits
    for alone, together in zip(one.scores(), two.scores(), strict=True):
        assert alone.keys() == together.keys()
        for name, value in alone.items():
            assert together[name] == pytest.approx(value, abs=0.0011), name
    ours, theirs = weights(one.folder)["model"], weights(two.folder)["model"]
    gap = max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in ours if ours[k].numel())
    assert gap < 1e-6  # measured 0, 6e-8, 0


@pytest.fixture
def mixture(tables, tmp_path):
    """Pictures, clips and sounds; with one row on each rank, ranks differ in what they hold."""
    path = tmp_path / "mixture.yaml"
    sources = [
        {"name": kind, "table": str(tables / f"pretrain_{kind}.tsv"), "weight": weight}
        for kind, weight in (("image", 1.0), ("video", 0.6), ("audio", 0.4))
    ]
    path.write_text(yaml.safe_dump(sources))
    return path


MIXED = (
    "--video-encoder-name=all_resnext14",
    "--audio-encoder-name=pann_cnn6",
    "--disable-validation",
    "--freeze-batchnorm",
    "--weight-decay=0.1",
    "--max-update=4",
    "--save-interval-updates=2",
    "--batch-size=1",
)


def test_a_mixture_whose_ranks_differ_in_modalities(train, mixture):
    """No backend is named: gradients travel beside the backward pass. Behind it, the run is the same; it may change."""
    options = (*MIXED, "--update-freq=2", "--bf16", "--store-ema")
    runs = {
        name: two_ranks(train, "unify_task", mixture, *options, *backend, name=name)
        for name, backend in (("beside", ()), ("behind", ("--ddp-backend=legacy_ddp",)))
    }
    assert len(runs["beside"].losses()) > 1 and all(loss > 0 for loss in runs["beside"].losses())
    assert runs["beside"].losses() == runs["behind"].losses()
    ends = {name: weights(run.folder) for name, run in runs.items()}
    same(ends["beside"]["model"], ends["behind"]["model"])
    same(ends["beside"]["extra_state"]["ema"], ends["behind"]["extra_state"]["ema"])
    folder = runs["behind"].folder
    (folder / "checkpoint_1_2.pt").rename(folder / "checkpoint_last.pt")
    other = two_ranks(train, "unify_task", mixture, *options, "--ddp-backend=c10d", name="behind")
    assert other.losses() == runs["beside"].losses()
    same(weights(folder)["model"], ends["beside"]["model"])


@pytest.mark.parametrize(
    ("option", "instead"), [("--ddp-comm-hook=fp16", "--bf16"), ("--broadcast-buffers", "--sync-bn")]
)
def test_options_of_torchs_exchange_say_what_to_use(train, tables, option, instead):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    refused(two_ranks(train, "caption", data, option, code=2), option.partition("=")[0], instead)


def test_losses_that_are_not_finite_are_counted_on_all_ranks(train, tables):
    """Their gradient of zeros goes through parameters that no forward pass used (torch's exchange ends the run)."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    first = train("caption", data, "--max-update=1", "--disable-validation", name="first").ok().folder
    state = weights(first)
    state["model"]["decoder.layers.0.fc1.weight"][0, 0] = float("nan")
    torch.save(state, first / "poisoned.pt")
    start = (f"--finetune-from-model={first / 'poisoned.pt'}", "--max-nonfinite=2", "--max-update=9")
    run = two_ranks(train, "caption", data, *start, "--disable-validation", code=2)
    refused(run, "the loss is nan", "after 2 such")


def test_rows_without_media_on_one_rank_only(train, world, tables, tmp_path):
    lines = (tables / "caption_train.tsv").read_text().splitlines()[:16]
    for number in range(0, 16, 5):
        lines[number] = lines[number].replace("images/", "nowhere/")
    table = tmp_path / "broken.tsv"
    table.write_text("\n".join(lines) + "\n")
    options = ("--batch-size=1", "--max-update=8", "--max-broken-share=0.9")
    run = two_ranks(train, "caption", [table, tables / "caption_val.tsv"], *options)
    assert len(run.losses()) == 8 and torch.isfinite(torch.tensor(run.losses())).all()
