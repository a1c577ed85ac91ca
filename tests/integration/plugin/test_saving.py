"""Checkpoints that are written beside the updates: what they hold, when they are there, and what ends with them."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import threading
import weakref
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
from fairseq import utils

from tests.support.checks import refused, same, weights
from tests.support.held_training import let_pass
from tests.support.plugin_runs import command, until_update
from unival.errors import OutputError
from unival.launch.stopping import STOPPED
from unival.launch.watchdog import WATCHDOG
from unival.tasks import saving
from unival.tasks.files import write_checkpoint
from unival.tasks.saving import WRITER, Writer
from unival.tasks.snapshot import Memory, Snapshot

OPTIONS = ("--max-update=6", "--save-interval-updates=2", "--keep-interval-updates=1", "--disable-validation")


@pytest.fixture
def held(runner, world, tables, tmp_path):
    """Start a run whose checkpoints wait for the gate; returns it and its gate."""

    def start(*options, name="held"):
        gate, folder = tmp_path / f"{name}.gate", tmp_path / name
        gate.mkdir()
        data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
        words = command("caption", data, world, folder, *OPTIONS, *options)
        env = {"UNIVAL_TEST_GATE": str(gate)}
        return runner.start(words, folder, env, program="tests.support.held_training"), gate

    return start


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint*.pt"))


def updates_in(path):
    return weights(path.parent, path.name)["optimizer_history"][-1]["num_updates"]


def test_updates_go_on_while_a_checkpoint_is_written(train, tables, held):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    whole = train("caption", data, *OPTIONS, name="whole").ok()
    run, gate = held()
    until_update(run, 3)
    assert not checkpoints(run.folder), "the third update is made, and the checkpoint of the second waits"
    let_pass(run, gate)
    let_pass(run, gate)
    run.until(lambda: any(gate.iterdir()))  # the third comes when all is done for the second
    assert checkpoints(run.folder) == ["checkpoint_1_4.pt", "checkpoint_last.pt"]
    assert (run.folder / "checkpoint_1_4.pt").samefile(run.folder / "checkpoint_last.pt")
    let_pass(run, gate)
    parts = run.finish().ok()
    assert parts.losses() == whole.losses() and checkpoints(parts.folder) == checkpoints(whole.folder)
    one, other = weights(whole.folder), weights(parts.folder)
    same(one["model"], other["model"])
    assert one["extra_state"]["train_iterator"] == other["extra_state"]["train_iterator"]


def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_of_before(train, tables, held):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    whole = train("caption", data, *OPTIONS, name="whole").ok()
    run, gate = held()
    let_pass(run, gate)
    until_update(run, 5)
    [part] = run.folder.glob(".*.part.checkpoint_1_4.pt")
    os.killpg(run.pid, signal.SIGKILL)
    assert run.process.wait() == -signal.SIGKILL
    assert checkpoints(run.folder) == ["checkpoint_1_2.pt", "checkpoint_last.pt"] and part.exists()
    assert updates_in(run.folder / "checkpoint_last.pt") == 2
    again = train("caption", data, *OPTIONS, name="held").ok()
    assert again.losses() == whole.losses() and not list(run.folder.glob(".*.part*"))
    same(weights(whole.folder)["model"], weights(again.folder)["model"])


def test_a_stop_waits_for_its_checkpoint(held):
    run, gate = held("--max-update=5000")
    until_update(run, 3)
    os.kill(run.pid, signal.SIGTERM)
    let_pass(run, gate)  # of the second update
    let_pass(run, gate)
    stopped = run.finish()
    assert stopped.code == STOPPED, stopped.text
    assert updates_in(run.folder / "checkpoint_last.pt") == stopped.records[-1]["update"]


def test_a_write_that_fails_ends_the_run(runner, world, tables, tmp_path):
    folder = tmp_path / "run"
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    words = command("caption", data, world, folder, *OPTIONS)
    env = {"UNIVAL_TEST_LIMIT": str(100_000)}
    run = runner.start(words, folder, env, program="tests.support.held_training").finish()
    refused(run, f"cannot write {folder / 'checkpoint_1_2.pt'}", "No earlier checkpoint is in")
    assert run.records[-1]["update"] in (2, 3) and not checkpoints(folder)
    assert not [path.name for path in folder.iterdir() if "part" in path.name]


# the copy


def state():
    """What a checkpoint may hold: shared, sliced, transposed, half, empty and trained tensors, and plain values."""
    torch.manual_seed(0)
    tied = torch.randn(6, 4)
    model = OrderedDict(tied=tied, again=tied, view=tied[2:], other=tied.t(), number=torch.tensor(7))
    model._metadata = OrderedDict(version=1)
    half = {"b": torch.randn(3, 5).bfloat16().t(), "h": torch.randn(2).half(), "empty": torch.empty(0, 3)}
    trained = [torch.nn.Parameter(torch.randn(3)), torch.randn(3, requires_grad=True)]
    plain = {"args": Namespace(lr=1.0), "moments": {0: {"step": 3, "exp_avg": torch.randn(9)}}, "none": None}
    return {"model": model, "half": half, "trained": trained, "rest": (plain, [1, "two"])}


def test_a_copy_is_written_as_what_it_copies(tmp_path):
    torch.save(utils.move_to_cpu(state()), tmp_path / "file.pt")
    engine = (tmp_path / "file.pt").read_bytes()
    ours = state()
    copy = Snapshot(ours).take(Memory())
    with torch.no_grad():
        for tensor in (*ours["model"].values(), *ours["half"].values(), *ours["trained"]):
            tensor.zero_()
    torch.save(copy, tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == engine


def test_one_copy_after_another():
    memory = Memory()
    for value in (1.0, 2.0, 3.0):
        tensor = torch.full((100_000,), value)
        copy = Snapshot({"tensor": tensor}).take(memory)["tensor"]
        assert torch.equal(copy, tensor) and len(memory._map) == 400_000
        memory.release()
    assert torch.equal(Snapshot({"tensor": torch.ones(9)}).take(memory)["tensor"], torch.ones(9))


def test_what_is_copied_and_its_copy_end_with_their_last_user():
    """States to go back to are as large as checkpoints: they must not wait for the garbage collector."""
    gc.disable()
    try:
        memory, tensor = Memory(), torch.ones(9)
        copy = Snapshot({"tensor": tensor}).take(memory)
        ends = weakref.ref(tensor), weakref.ref(memory._map)
        del tensor, copy, memory
        assert [end() for end in ends] == [None, None]
    finally:
        gc.enable()


def test_a_forked_process_keeps_what_it_has_in_the_place_of_the_memory():
    """Memory that is not handed on leaves room for other things of a child, which the end of its owner would free."""
    writer = Writer()
    Snapshot({"tensor": torch.ones(2**18)}).take(writer._memory)

    def goes_on():
        taken = mmap.mmap(-1, 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        writer.in_child()
        taken[:] = bytes(len(taken))
        return True

    assert in_fork(goes_on)


def test_a_copy_is_not_handed_on_to_forked_processes():
    copy = Snapshot({"tensor": torch.ones(100_000)}).take(Memory())
    start = copy["tensor"].data_ptr()

    def mapped():
        with open("/proc/self/maps", encoding="ascii") as lines:
            ranges = [line.split()[0].split("-") for line in lines]
        return any(int(begin, 16) <= start < int(end, 16) for begin, end in ranges)

    assert mapped()
    assert in_fork(lambda: not mapped())


def in_fork(holds) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if holds() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_forked_processes_do_not_hold_a_file_open(tmp_path, monkeypatch):
    """The content of a checkpoint that is removed would stay on the disk for as long as a data worker lives."""
    path, flush, found = tmp_path / "checkpoint_1_2.pt", os.fsync, []

    def opened():
        names = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
        return any(str(tmp_path) in name for name in names)

    def fork(number):
        found.extend([opened(), in_fork(lambda: not opened())])
        flush(number)

    monkeypatch.setattr(os, "fsync", fork)
    with WRITER.writing(path):
        write_checkpoint({"tensor": torch.ones(9)}, path)
    assert found == [True, True] and path.is_file()


# the thread


def test_one_write_at_a_time_and_the_training_in_between():
    writer, gate, order = Writer(), threading.Event(), []

    def save(name):
        def run():
            assert WATCHDOG._pauses == 1, "the training waits"
            value = writer.hold({"tensor": tensor})["tensor"]
            gate.wait()
            order.append((name, float(value)))

        return run

    tensor = torch.zeros(())
    writer.begin(save("first"))
    assert not order and not WATCHDOG._pauses, "what moves no more now is a hang"
    tensor += 1
    threading.Timer(0.1, gate.set).start()
    writer.begin(save("second"))
    assert order[0] == ("first", 0.0)
    tensor += 1
    writer.wait()
    assert order == [("first", 0.0), ("second", 1.0)] and not WATCHDOG._pauses


@pytest.mark.parametrize("held", [False, True])
def test_what_goes_wrong_is_raised_once(held):
    writer, gate = Writer(), threading.Event()

    def save():
        if held:
            writer.hold({"tensor": torch.ones(1)})
            gate.wait()
        raise OutputError("no room")

    if held:
        writer.begin(save)
        writer.look()
        gate.set()
        writer._thread.join()
        with pytest.raises(OutputError, match="no room"):
            writer.look()
    else:
        with pytest.raises(OutputError, match="no room"):
            writer.begin(save)
    writer.look()
    writer.wait()


@pytest.mark.parametrize("earlier", [True, False])
def test_a_failed_save_says_what_is_left(tmp_path, earlier):
    """A folder that vanished has nothing to go on from."""
    folder = tmp_path / "run"
    folder.mkdir()
    if earlier:
        (folder / "checkpoint_last.pt").touch()
    (folder / "checkpoint_1_2.pt").mkdir()  # nothing can be written there
    with pytest.raises(OutputError) as raised:
        saving.write({}, folder / "checkpoint_1_2.pt", None)
    assert ("What was saved before is as it was" in str(raised.value)) is earlier
    assert (f"No earlier checkpoint is in {folder}" in str(raised.value)) is not earlier


def test_without_memory_the_training_waits(monkeypatch, caplog):
    monkeypatch.setattr(saving, "room_for", lambda size: False)
    caplog.set_level("INFO")
    writer, written = Writer(), []
    tensor = torch.ones(2**20)
    for _ in range(2):
        writer.begin(lambda: written.append(writer.hold({"tensor": tensor})["tensor"]))
        assert written[-1] is tensor, "no copy, and it is done"
    [line] = caplog.messages
    assert "updates wait while a checkpoint is written" in line and "4 MiB" in line


def test_the_end_of_a_run_waits_and_reports(monkeypatch, caplog):
    def engine(error, wrong):
        gate = threading.Event()

        def run(cfg):
            def save():
                WRITER.hold({})
                gate.wait()
                if wrong:
                    raise OutputError("no room")

            WRITER.begin(save)
            threading.Timer(0.1, gate.set).start()
            if error is not None:
                raise error

        return run

    monkeypatch.setattr(saving, "_engine_main", engine(None, wrong=True))
    with pytest.raises(OutputError, match="no room"):
        saving.main(None)
    monkeypatch.setattr(saving, "_engine_main", engine(SystemExit(STOPPED), wrong=True))
    with pytest.raises(SystemExit):
        saving.main(None)
    assert "the last checkpoint: no room" in caplog.text
    monkeypatch.setattr(saving, "_engine_main", engine(None, wrong=False))
    saving.main(None)
    assert WRITER._thread is None
