"""Data workers that begin before their batches are asked for: nothing else changes, and none is left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.checks import group_is_gone, same, weights
from unival.tasks.ahead import Ahead

OPTIONS = ("--max-epoch=3", "--save-interval-updates=2", "--validate-interval=1", "--dropout=0.1")


def data(tables):
    return [tables / "caption_train.tsv", tables / "caption_val.tsv"]


def test_a_run_is_that_of_one_without_workers(train, tables):
    runs = [
        train("caption", data(tables), *OPTIONS, f"--num-workers={workers}", name=f"workers{workers}").ok()
        for workers in (0, 1)
    ]
    one, other = (
        [{name: value for name, value in record.items() if name != "data_wait"} for record in run.records]
        for run in runs
    )
    assert one == other and len(runs[0].scores()) > 3
    same(weights(runs[0].folder)["model"], weights(runs[1].folder)["model"])


def test_an_epoch_that_is_never_read_leaves_no_worker(train, tables):
    options = ("--lr=0", "--freeze-batchnorm", "--patience=1", "--num-workers=1", "--no-eval-generate")
    options += ("--max-update=60",)
    run = train("caption", data(tables), *options, start=True)
    assert "early stop" in run.finish().ok().out and group_is_gone(run.pid)


@pytest.mark.parametrize(
    ("done", "left", "validates"),
    [
        (1, 5, True),  # a save within the epoch
        (2, 5, True),  # the interval of validations
        (4, 5, False),
        (3, 1, False),  # a save at the end of an epoch that is not validated
        (9, 1, True),  # of one that is
        (6, 5, True),  # the last update
        (0, 5, False),
    ],
)
def test_which_updates_a_validation_follows(done, left, validates):
    cfg = SimpleNamespace(
        dataset=SimpleNamespace(
            validate_after_updates=2, validate_interval_updates=3, validate_interval=2, valid_subset="valid",
            disable_validation=False, num_workers=1,
        ),
        checkpoint=SimpleNamespace(save_interval_updates=2),
        optimization=SimpleNamespace(max_update=7),
    )  # fmt: skip
    asked = []
    trainer = SimpleNamespace(cfg=cfg, get_num_updates=lambda: done, _dummy_batch=None)
    iterator = SimpleNamespace(begin=lambda: asked.append("begun"))
    position = SimpleNamespace(updates_left=left, epoch=2 if done == 9 else 1)
    Ahead(trainer).validation(position, lambda subset: asked.append(subset) or iterator)
    assert asked == (["valid", "begun"] if validates else [])
