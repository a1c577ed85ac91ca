"""A killed run that is started again by the same command ends exactly where an uninterrupted one does."""

from __future__ import annotations

import pytest
import torch
import yaml

from tests.support.checks import same, weights
from tests.support.plugin_runs import two_ranks

LONG = (
    "--max-update=12",
    "--save-interval-updates=4",
    "--dropout=0.1",
    "--num-workers=0",
    "--validate-interval=1",
)


def resumed(train, task, data, *options, killed_at=6):
    whole = train(task, data, *LONG, *options, name="whole").ok()
    started = train(task, data, *LONG, *options, name="parts", start=True)
    started.kill_after(killed_at)
    parts = train(task, data, *LONG, *options, name="parts").ok()
    assert "Loaded checkpoint" in parts.text
    assert parts.losses() == whole.losses()
    assert [r["update"] for r in parts.records] == [r["update"] for r in whole.records]
    one, other = weights(whole.folder), weights(parts.folder)
    same(one["model"], other["model"])
    for state in ("exp_avg", "exp_avg_sq"):
        for number, values in one["last_optimizer_state"]["state"].items():
            assert torch.equal(values[state], other["last_optimizer_state"]["state"][number][state])
    assert one["extra_state"]["train_iterator"] == other["extra_state"]["train_iterator"]
    assert one["extra_state"].get("best") == other["extra_state"].get("best")
    return one, other


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_in_the_middle_of_an_epoch(train, tables, workers):
    data = [tables / "vqa_train.tsv", tables / "vqa_val.tsv"]
    resumed(train, "vqa_gen", data, "--use-dataaug", f"--num-workers={workers}", "--val-inference-type=open")


def test_with_averaged_weights_of_lower_frequency(train, tables):
    options = ["--store-ema", "--ema-fp32", "--ema-decay=0.9", "--ema-update-freq=3", "--uses-ema"]
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    one, other = resumed(train, "caption", data, *options)
    same(one["extra_state"]["ema"], other["extra_state"]["ema"])
    same(one["extra_state"]["ema_fp32_params"], other["extra_state"]["ema_fp32_params"])


def test_in_bfloat16_with_accumulation(train, tables):
    """The engine forgets the float32 weights between runs; ours are kept."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    one, other = resumed(train, "caption", data, "--bf16", "--update-freq=2", "--batch-size=4")
    for own, theirs in zip(
        one["extra_state"]["master_weights"], other["extra_state"]["master_weights"], strict=True
    ):
        assert own.dtype == torch.float32 and torch.equal(own, theirs)
    assert any(not torch.equal(m, m.bfloat16().float()) for m in one["extra_state"]["master_weights"])


def test_a_mixture(train, tables, tmp_path):
    mixture = [
        {"name": "pictures", "table": str(tables / "pretrain_image.tsv")},
        {"name": "clips", "table": str(tables / "pretrain_video.tsv"), "weight": 0.5},
    ]
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump(mixture))
    video = ("--video-encoder-name=all_resnext14", "--freeze-video-encoder", "--disable-validation")
    resumed(train, "unify_task", path, *video, "--steps-per-epoch=5")


def test_finetuning_that_is_resumed_takes_its_own_weights(train, tables):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    first = train("caption", data, "--max-update=2", name="first").ok()
    start = f"--finetune-from-model={first.folder / 'checkpoint_last.pt'}"
    resumed(train, "caption", data, start)
    begun = train(
        "caption", data, start, "--max-update=1", "--lr=1e-9", "--warmup-ratio=0", name="begun"
    ).ok()
    assert "initial weights from" in begun.text
    one, other = weights(first.folder)["model"], weights(begun.folder)["model"]
    name = "decoder.layers.0.fc1.weight"
    assert torch.allclose(one[name], other[name], atol=1e-7) and begun.records[0]["update"] == 1
    (first.folder / "checkpoint_last.pt").unlink()  # of use for a first start alone
    more = train("caption", data, start, "--max-update=2", name="begun").ok()
    assert more.records[-1]["update"] == 2


def test_a_kill_while_saving_leaves_a_good_checkpoint(tmp_path):
    """The second name of a checkpoint appears by a rename: at any moment it is the old file or the new one."""
    import os
    import signal
    import time

    from unival.tasks.files import AtomicFiles

    old, new, last = tmp_path / "old.pt", tmp_path / "new.pt", tmp_path / "checkpoint_last.pt"
    torch.save({"tensor": torch.zeros(200_000), "version": 0}, old)
    torch.save({"tensor": torch.ones(200_000), "version": 1}, new)
    for delay in (0.0, 0.002, 0.005, 0.02):
        AtomicFiles.copy(str(old), str(last))
        pid = os.fork()
        if pid == 0:
            while True:
                for source in (new, old):
                    AtomicFiles.copy(str(source), str(last), overwrite=True)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        state = torch.load(last, weights_only=True)
        assert float(state["tensor"].sum()) in (0.0, 200_000.0)


def test_on_another_number_of_processes_in_every_epoch(train, tables):
    """Every update keeps its rows: losses as undisturbed, dropout included."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    options = (
        "--dropout=0.1",
        "--freeze-batchnorm",
        "--batch-size=4",
        "--update-freq=2",
        "--total-num-update=10",
        "--disable-validation",
    )
    whole = train("caption", data, *options, "--max-update=10", name="whole").ok()
    train("caption", data, *options, "--max-update=2", name="parts").ok()
    two = two_ranks(train, "caption", data, *options, "--max-update=5", name="parts")
    assert "goes on on 2: each accumulates 1 batch(es), an update keeps its 8 rows" in two.out
    parts = train("caption", data, *options, "--max-update=10", name="parts").ok()
    assert parts.losses() == pytest.approx(whole.losses(), abs=0.0011)
    larger = train("caption", data, *options, "--batch-size=8", "--max-update=12", name="parts").ok()
    assert "an update has 16 rows now, it had 8" in larger.out
