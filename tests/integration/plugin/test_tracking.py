"""Curves and pictures of a run: TensorBoard, Weights & Biases (offline), and the sheet beside the checkpoint."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.plugin_runs import ROOT
from unival.errors import ConfigError

BLOCK = 32768
CURVES = {"loss", "nll_loss", "lr", "gnorm", "examples_per_second", "data_wait"}


def test_tensorboard_and_the_sheet(train, tables, tmp_path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    data = [tables / "grounding_train.tsv", tables / "grounding_val.tsv"]
    board = tmp_path / "board"
    run = train("refcoco", data, "--max-update=3", f"--tensorboard-logdir={board}", "--num-workers=1").ok()
    assert "examples_per_second=" in run.text and "data_wait=" in run.text
    inner, valid = (accumulator.EventAccumulator(str(board / part)) for part in ("train_inner", "valid"))
    inner.Reload()
    valid.Reload()
    assert set(inner.Tags()["scalars"]) >= CURVES
    assert [event.step for event in inner.Scalars("loss")] == [1, 2, 3]
    assert all(0 <= event.value <= 1 for event in inner.Scalars("data_wait"))
    assert all(event.value > 0 for event in inner.Scalars("examples_per_second"))
    waits = [r["data_wait"] for r in run.records if r["split"] == "train"]
    assert waits == pytest.approx([event.value for event in inner.Scalars("data_wait")])
    assert [f"data_wait={wait:g}," in run.text for wait in waits] == [True] * 3
    assert "score" in valid.Tags()["scalars"] and valid.Tags()["images"] == ["predictions"]
    sheet = Image.open(run.folder / "predictions.png")
    shown = valid.Images("predictions")[0]
    assert (shown.width, shown.height) == sheet.size and sheet.width > 1000 and shown.step == 3


def test_what_only_reports_ends_no_run(train, tables, tmp_path) -> None:
    """As on a disk that a checkpoint on its way has filled; the checkpoints alone decide whether a run goes on."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    folder = tmp_path / "full"
    folder.mkdir()
    for name in ("train_log.jsonl", "predictions.png"):
        (folder / name).symlink_to("/dev/full")
    run = train("caption", data, "--max-update=2", name="full").ok()
    assert run.folder == folder and (folder / "checkpoint_last.pt").is_file()
    for name, expected in (
        ("train_log.jsonl", ["waits for room", "lacks its last 3 lines"]),
        ("predictions.png", ["are not drawn"]),
    ):
        lines = [line for line in run.text.splitlines() if name in line]
        assert all("No space left" in line for line in lines), run.text
        assert [text in line for text, line in zip(expected, lines, strict=True)] == [True] * len(expected)


@pytest.fixture
def journal(tmp_path):
    """A log, and a way to fill the disk below it and to make room again."""
    from unival.tasks.journal import Journal

    class Log(Journal):
        def fill(self):
            if self.path.exists():
                self.path.rename(tmp_path / "before")
            self.path.symlink_to("/dev/full")

        def make_room(self):
            self.path.unlink()
            if (tmp_path / "before").exists():
                (tmp_path / "before").rename(self.path)

        @property
        def updates(self):
            return [json.loads(line)["update"] for line in self.path.read_bytes().splitlines()]

    return Log(tmp_path / "log.jsonl")


def test_a_journal_loses_nothing_while_the_disk_is_full(journal, caplog) -> None:
    from unival.tasks.journal import finish

    journal.add({"update": 1})
    journal.fill()
    journal.add({"update": 2})
    journal.add({"update": 3})
    journal.make_room()
    journal.add({"update": 4})
    assert journal.updates == [1, 2, 3, 4]
    journal.fill()
    journal.add({"update": 5})
    journal.make_room()
    finish()
    assert journal.updates == [1, 2, 3, 4, 5]
    assert [record.message.split(" ", 1)[1] for record in caplog.records] == [
        "waits for room, the training goes on: No space left on device"
    ] * 2


LIMITED = """
import json, os, resource, signal, sys
from pathlib import Path
from unival.tasks.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Journal(Path(sys.argv[1]))
log.add({"update": 1})
size = log.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, resource.RLIM_INFINITY))
log.add({"update": 2})
assert log.path.stat().st_size == size, "five bytes of a line stay"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.add({"update": 3})
"""


def test_a_journal_leaves_no_half_line(journal) -> None:
    """With room for a part of a line the system writes that part."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, journal.path], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0 and journal.updates == [1, 2, 3]


def test_a_journal_says_what_it_lost(journal, caplog) -> None:
    from unival.tasks.journal import finish

    journal.fill()
    for update in (1, 2, 3):
        journal.add({"update": update})
    finish()
    assert caplog.records[-1].message.endswith("lacks its last 3 lines: No space left on device")
    journal.make_room()
    finish()
    journal.add({"update": 1})
    assert journal.updates == [1], "lines of a run that is over come in no other's log"


def test_a_journal_drops_what_will_be_done_again(journal) -> None:
    rows = [
        "caf\u00e9 \u2028 \u0085",
        "\ud83d",
    ]  # a surrogate alone, separators of lines that JSON does not escape
    for update in (1, 2, 3):
        journal.add({"update": update, "rows": rows})
    journal.trim(3)
    assert journal.updates == [1, 2, 3]
    with open(journal.path, "ab") as file:
        file.write(
            '[1]\n{"update": "3"}\n{"update": 4, "rows": "caf\u00e9'.encode()[:-1]
        )  # a kill in a character
    journal.trim(2)
    assert journal.updates == [1, 2]
    assert [json.loads(line)["rows"] for line in journal.path.read_bytes().splitlines()] == [rows] * 2
    journal.path.write_bytes(b'{"update": 1}\n{"update": 9}\n{"update": 2}')
    journal.trim(2)
    assert journal.updates == [1, 2] and journal.path.read_bytes().endswith(b"\n")
    journal.trim(0)
    assert journal.path.read_bytes() == b""


def test_a_picture_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch, caplog) -> None:
    """Weights & Biases copies it into the run's folder."""
    pytest.importorskip("wandb")
    from unival.tasks.tracking import WeightsAndBiases

    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WeightsAndBiases("test", "run", tmp_path)
    monkeypatch.setattr(tracker, "_image", lambda pixels: Path("/dev/full").write_bytes(pixels.tobytes()))
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    tracker.picture("predictions", pixels, 1)
    tracker.picture("predictions", pixels, 2)
    tracker.scalars({"loss": 1.0}, "train", 2)
    tracker.finish()
    [warning] = [record.message for record in caplog.records if "lacks values" in record.message]
    assert "No space left on device" in warning and str(tmp_path) in warning


def test_tensorboard_goes_on_when_there_is_room_again(tmp_path, monkeypatch, caplog) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from unival.tasks import tracking

    board = tracking.TensorBoard(str(tmp_path))
    board.scalars({"loss": 1.0}, "train", 1)
    monkeypatch.setattr(tracking, "_ROOM", 1 << 62)
    for update in (2, 3):
        board.scalars({"loss": 1.0}, "train", update)
    monkeypatch.undo()
    board.scalars({"loss": 1.0}, "train", 4)
    board.finish()
    events = accumulator.EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert {event.step for event in events.Scalars("loss")} >= {4}
    files = [str(path) for path in (tmp_path / "train").iterdir()]
    assert len(files) == 2, "a new file after the failure"
    [warning] = [record.message for record in caplog.records if "lacks values" in record.message]
    assert "No space left on device" in warning


def test_the_wait_for_data_is_a_share_of_the_updates_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second of reading beside three of computing, and a bar of a validation in between."""
    from fairseq.logging import metrics

    from unival.tasks import waiting
    from unival.tasks.tracking import DATA_WAIT, progress_bar

    class Clock:
        now = 0.0

    monkeypatch.setattr(waiting.time, "perf_counter", lambda: Clock.now)
    metrics.reset_meters("train_inner")
    DATA_WAIT.reset()

    def batches() -> Iterator[int]:
        for number in range(4):
            Clock.now += 1.0
            yield number

    validation = progress_bar(batches(), log_format="none", prefix="valid on 'valid' subset")
    for batch in progress_bar(batches(), log_format="none"):
        with metrics.aggregate("train_inner"):
            metrics.log_start_time("train_wall")
            Clock.now += 3.0
            metrics.log_stop_time("train_wall")
        next(iter(validation))
        assert (DATA_WAIT.share, DATA_WAIT.batches) == (0.25, batch + 1)
    metrics.reset_meters("train_inner")


def test_no_sheet_where_none_is_wanted(train, tables) -> None:
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    run = train("caption", data, "--max-update=1", "--eval-pictures=0").ok()
    assert not (run.folder / "predictions.png").exists()


def log_records(data: bytes) -> Iterator[bytes]:
    """Contents of a log in LevelDB's format behind a header of seven bytes."""
    place, parts = 7, []
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # padding
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        parts.append(data[place + 7 : place + 7 + size])
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def test_weights_and_biases_offline(train, tables) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    env = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    options = ("--wandb-project=unival-tests", "--max-update=2")
    run = train("caption", data, *options, env=env).ok()
    again = train("caption", data, *options, "--max-update=3", env=env).ok()
    assert again.folder == run.folder
    records: list[dict[str, object]] = []
    identities = set()
    files = sorted(run.folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for file in files:
        for content in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                records.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
            elif record.WhichOneof("record_type") == "run":
                identities.add(record.run.run_id)
                assert record.run.project == "unival-tests"
    assert identities == {(run.folder / "wandb_run.txt").read_text().strip()}, "a resumed run goes on"
    training = [r for r in records if "train_inner/loss" in r]
    assert [r["update"] for r in training] == [1, 2, 3]
    assert all({f"train_inner/{name}" for name in CURVES} <= set(r) for r in training)
    assert any("valid/cider" in r for r in records)
    pictures = [r.get("valid/predictions/_type") for r in records if "valid/predictions/path" in r]
    assert pictures == ["image-file"] * 2
    kept = sorted(run.folder.glob("wandb/offline-run-*/files/media/images/valid/*.png"))
    assert len(kept) == 2 and Image.open(kept[-1]).size == Image.open(run.folder / "predictions.png").size


def test_wandb_that_cannot_start_stops_before_the_first_step(train, tables, tmp_path) -> None:
    pytest.importorskip("wandb")
    env = {"WANDB_MODE": "online", "WANDB_CONFIG_DIR": str(tmp_path), "NETRC": str(tmp_path / "none")}
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    run = train("caption", data, "--max-update=1", "--wandb-project=x", env=env)
    assert run.code == 2 and "error: --wandb-project: " in run.err and "WANDB_MODE=offline" in run.err
    assert len(run.err.splitlines()) == 1 and not run.losses()


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [("wandb", {"wandb_project": "x"}, "wandb"), ("tensorboard", {"tensorboard_logdir": "x"}, "train")],
)
def test_a_logger_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, options: dict[str, str], extra: str
) -> None:
    from unival.tasks.tracking import progress_bar

    for name in [
        name for name in sys.modules if name.split(".")[0] == module or name == "torch.utils.tensorboard"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs {module} .*pip install .*\[{extra}\]"):
        progress_bar([], log_format="none", **options)
