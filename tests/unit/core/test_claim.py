"""One writer at a time: locks that name their holder, and that are taken over when it is gone."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from unival.core import claim
from unival.core.claim import Holder, claimed, take
from unival.errors import ConfigError


def held_by_another_process(place, **settings) -> int:
    """Fork a process that claims ``place`` and sleeps; return its number when it has it."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        take(place, **settings)
        os.write(told, b"x")
        time.sleep(60)
        os._exit(0)
    os.close(told)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return pid


@pytest.mark.parametrize("file", [False, True])
def test_a_second_writer_is_told_who_writes(tmp_path, file):
    place = tmp_path / "run"
    pid = held_by_another_process(place, file=file)
    try:
        with pytest.raises(ConfigError, match=rf"'{place}' is being written by process {pid} on .*, since 2"):
            take(place, file=file)
    finally:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with claimed(place, file=file):  # its holder is gone
        [lock] = [path for path in (*tmp_path.iterdir(), *tmp_path.glob("run/.*")) if path.is_file()]
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


def test_a_number_that_was_given_to_another_process_is_no_holder(tmp_path):
    held = take(tmp_path)
    content = json.loads(held.path.read_text())
    held.path.write_text(json.dumps({**content, "ticks": content["ticks"] - 1}))
    take(tmp_path).release()
    held.path.write_text("{torn")
    take(tmp_path).release()


@pytest.mark.parametrize("alive", [True, False])
def test_a_holder_on_another_machine_is_known_by_its_heartbeat(tmp_path, monkeypatch, alive):
    monkeypatch.setattr(claim, "STALE", 2.5)
    lock = tmp_path / ".unival.lock"
    away = Holder("elsewhere", "boot", 7, 1, "2026-01-01 00:00:00", "unival train")
    lock.write_text(json.dumps(away.__dict__))
    os.utime(lock, (0, 0))  # a machine whose clock is wrong
    if alive:
        threading.Timer(0.5, os.utime, (lock, (5, 5))).start()
        with pytest.raises(ConfigError, match="process 7 on elsewhere"):
            take(tmp_path)
    else:
        take(tmp_path).release()


def test_the_holder_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "BEAT", 0.05)
    held = take(tmp_path)
    os.utime(held.path, (0, 0))
    time.sleep(0.5)
    assert held.path.stat().st_mtime > 1
    held.release()
    time.sleep(0.1)
    assert not held.path.exists()


def test_only_one_of_many_gets_a_stale_lock(tmp_path):
    pid = held_by_another_process(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    gate, opened = os.pipe()
    for _ in range(6):
        if os.fork() == 0:
            code = 1
            try:
                os.close(opened)
                take(tmp_path)
                os.read(gate, 1)  # until all others were refused
                code = 0
            finally:
                os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(5)]
    os.close(opened)
    assert codes == [1] * 5
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    os.close(gate)
