"""Two processes do what one does: equal losses, weights and scores, every row once."""

from __future__ import annotations

import pytest
import torch
import yaml

from tests.support.checks import refused, weights
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


def test_a_mixture_whose_ranks_differ_in_modalities(train, tables, tmp_path):
    path = tmp_path / "mixture.yaml"
    mixture = [
        {"name": "pictures", "table": str(tables / "pretrain_image.tsv")},
        {"name": "clips", "table": str(tables / "pretrain_video.tsv"), "weight": 0.4},
    ]
    path.write_text(yaml.safe_dump(mixture))
    options = (
        "--video-encoder-name=all_resnext14",
        "--disable-validation",
        "--freeze-batchnorm",
        "--max-update=6",
    )
    run = two_ranks(train, "unify_task", path, *options, "--batch-size=2", "--ddp-backend=legacy_ddp")
    assert len(run.losses()) == 6 and all(loss > 0 for loss in run.losses())
    refused(
        two_ranks(train, "unify_task", path, *options, "--ddp-backend=c10d", name="c10d", code=2),
        "legacy_ddp",
    )


def test_rows_without_media_on_one_rank_only(train, world, tables, tmp_path):
    lines = (tables / "caption_train.tsv").read_text().splitlines()[:16]
    for number in range(0, 16, 5):
        lines[number] = lines[number].replace("images/", "nowhere/")
    table = tmp_path / "broken.tsv"
    table.write_text("\n".join(lines) + "\n")
    options = ("--batch-size=1", "--max-update=8", "--max-broken-share=0.9")
    run = two_ranks(train, "caption", [table, tables / "caption_val.tsv"], *options)
    assert len(run.losses()) == 8 and torch.isfinite(torch.tensor(run.losses())).all()
