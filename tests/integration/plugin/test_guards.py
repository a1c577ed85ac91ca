"""What a run does not write: numbers that are none, checkpoints without room, leftovers."""

from __future__ import annotations

import os
import stat
import zipfile
from types import SimpleNamespace

import pytest
import torch

from tests.support.checks import refused, weights
from unival.errors import OutputError
from unival.tasks import files
from unival.tasks.files import check_room, nbytes, tidy, write_checkpoint
from unival.tasks.guards import Stagnation, not_finite
from unival.tasks.saving import write

HUGE = ("--lr=1e6", "--weight-decay=1e6")  # weights grow by 1e12 in an update


def data(tables):
    return [tables / "caption_train.tsv", tables / "caption_val.tsv"]


def test_weights_that_are_no_longer_usable_are_not_saved(train, tables):
    """The run ended with "no output ends within max_len_b" of a validation that hid the NaN."""
    options = ("--clip-norm=0", "--warmup-ratio=0", "--save-interval-updates=1", "--freeze-batchnorm")
    first = train("caption", data(tables), *options, "--max-update=1").ok()
    before = weights(first.folder)["model"]
    run = train("caption", data(tables), *options, "--max-update=6", *HUGE)
    refused(run, "othing is saved", "Lower --lr")
    after = weights(first.folder)["model"]
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert not [path.name for path in first.folder.iterdir() if "part" in path.name or "tmp" in path.name]


def test_the_offending_batch_is_written(train, tables):
    run = train(
        "caption",
        data(tables),
        *HUGE,
        "--clip-norm=0",
        "--max-update=9",
        "--no-save",
        "--disable-validation",
        "--max-nonfinite=2",
    )
    refused(run, "Stopped after 2 such updates")
    [first, *_] = sorted(run.folder.glob("offending_update*_rank0.pt"))
    [batch] = torch.load(first, weights_only=True)
    assert len(batch["id"]) == 8 and batch["target"].shape[0] == 8


def test_the_first_tensor_that_is_not_finite_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert not_finite(model, None) == ""
    model[1].running_mean[0] = torch.nan
    assert not_finite(None, model) == "1.running_mean"
    model[0].bias.data[1] = torch.inf
    assert not_finite(model) == "0.bias"


def test_what_does_not_change_is_reported_once(caplog):
    watch = Stagnation(3)
    for update in range(1, 9):
        watch.update(update, {"loss": 0.5, "gnorm": float(update)})
    assert caplog.text.count("loss is 0.5 since update 1, exactly") == 1 and "gnorm" not in caplog.text
    watch.validation(4, ["a"] * 7)
    watch.validation(4, [str(n) for n in range(8)])
    watch.validation(6, [str(n) for n in range(8)])
    watch.validation(8, ["a"] * 8)
    assert "at update 6 gives the same answers as the one before" in caplog.text
    assert "all 8 answers of the validation at update 8 are 'a'" in caplog.text


# disks


def test_a_checkpoint_without_room_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint_last.pt"
    write_checkpoint({"tensor": torch.ones(1000)}, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3999))
    with pytest.raises(OutputError, match="it takes 0 MiB and 0 MiB are free there"):
        write_checkpoint({"tensor": torch.zeros(1000)}, path)
    assert torch.load(path)["tensor"].sum() == 1000 and os.listdir(tmp_path) == [path.name]
    with pytest.raises(OutputError, match="Free space"):
        check_room(tmp_path, 4000, 1)


def test_a_checkpoint_is_read_back(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint_last.pt"
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda archive: "archive/data/0")
    with pytest.raises(OutputError, match="'archive/data/0' in it is damaged"):
        write_checkpoint({"tensor": torch.ones(9)}, path)
    assert not os.listdir(tmp_path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_shared_tensors_count_once():
    one = torch.zeros(100)
    assert nbytes({"a": one, "b": [one.view(10, 10), torch.zeros(2)]}) == 408


def test_leftovers_go_and_a_checkpoint_comes_home(tmp_path):
    home, spare = tmp_path / "run", tmp_path / "spare"
    home.mkdir()
    spare.mkdir()
    for name in (
        "checkpoint_1_40.pt.tmp",
        "checkpoint_best.pt.77.part",
        ".77-0.part.checkpoint_last.pt",
        ".9-2.part.a.png",
    ):
        (home / name).write_text("half")
    (home / "notes.txt").write_text("mine")
    (home / "checkpoint_last.pt").write_text("old")
    os.utime(home / "checkpoint_last.pt", (1, 1))
    (spare / "checkpoint_last.pt").write_text("new")
    tidy(home, str(spare))
    assert sorted(os.listdir(home)) == ["checkpoint_last.pt", "notes.txt"]
    assert (home / "checkpoint_last.pt").read_text() == "new" and not os.listdir(spare)


def test_a_run_without_room_saves_elsewhere(tmp_path, monkeypatch):
    home, spare = tmp_path / "run", tmp_path / "spare"
    home.mkdir()

    def usage(folder):
        return SimpleNamespace(free=0 if folder == home else 10**9)

    monkeypatch.setattr(files.shutil, "disk_usage", usage)
    state = {"tensor": torch.ones(9), "optimizer_history": [{"num_updates": 4}]}
    with pytest.raises(OutputError, match=rf"Update 4 is saved as {spare / 'checkpoint_last.pt'}; the same"):
        write(state, home / "checkpoint_1_4.pt", str(spare))
    assert not os.listdir(home) and torch.load(spare / "checkpoint_last.pt")["tensor"].sum() == 9
    monkeypatch.undo()
    tidy(home, str(spare))
    assert torch.load(home / "checkpoint_last.pt")["tensor"].sum() == 9
