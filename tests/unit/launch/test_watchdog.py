"""A process that hangs says where, and ends; so does one that is asked to stop and cannot."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from unival.launch import watchdog
from unival.launch.stopping import REQUEST, STOPPED
from unival.launch.watchdog import HUNG, WATCHDOG


def stuck_in_here():
    time.sleep(60)


def end_of(tmp_path, act):
    """Run ``act`` in a forked process; return its exit code and what it wrote to standard error."""
    log = tmp_path / "err"
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
        import sys

        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        try:
            act()
        finally:
            os._exit(1)
    started = time.monotonic()
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() - started > 30:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), log.read_text()


def test_a_hang_shows_stacks_and_rows(tmp_path):
    def act():
        WATCHDOG.limit, WATCHDOG.reading = 0.5, lambda: ["data worker 1 has been reading table, row 9"]
        WATCHDOG.start()
        WATCHDOG.beat(["row 7", "row 8"])
        stuck_in_here()

    code, said = end_of(tmp_path, act)
    assert code == HUNG
    assert "rank 0 (" in said and "its last rows: row 7, row 8\ndata worker 1 has been" in said
    assert "in stuck_in_here" in said


def test_what_takes_long_on_purpose_is_no_hang(tmp_path):
    def act():
        WATCHDOG.limit = 0.5
        WATCHDOG.start()
        WATCHDOG.beat()
        with WATCHDOG.paused():
            time.sleep(1.2)
        os._exit(0)

    assert end_of(tmp_path, act) == (0, "")


@pytest.mark.parametrize(("begun", "expected"), [(True, HUNG), (False, STOPPED)])
def test_a_stop_is_not_waited_for_when_nothing_moves(tmp_path, monkeypatch, begun, expected):
    monkeypatch.setattr(watchdog, "_GRACE", 0.5)

    def act():
        REQUEST.watch()
        WATCHDOG.start()
        if begun:
            WATCHDOG.beat()
        os.kill(os.getpid(), signal.SIGTERM)
        stuck_in_here()
        stuck_in_here()

    code, said = end_of(tmp_path, act)
    assert code == expected and "SIGTERM" in said and "in stuck_in_here" in said


@pytest.mark.parametrize(
    ("at_once", "signals", "expected"),
    [
        (True, [signal.SIGTERM], (STOPPED, "before the first update")),
        (True, [signal.SIGINT], (STOPPED, "before the first update")),
        (False, [signal.SIGINT, signal.SIGINT], (0, "Ctrl-C once more")),  # from a terminal and a launcher
        (False, [signal.SIGINT, None, signal.SIGINT], (130, "ended at once")),
        (False, [signal.SIGTERM, None, signal.SIGHUP], (0, "")),
    ],
)
def test_signals(tmp_path, at_once, signals, expected):
    left = tmp_path / "left"

    def act():
        REQUEST.watch()
        REQUEST.at_once, REQUEST.leaving = at_once, [left.touch]
        for number in signals:
            if number is None:
                time.sleep(0.7)
            else:
                os.kill(os.getpid(), number)
        os._exit(0 if REQUEST.made else 1)

    code, said = end_of(tmp_path, act)
    assert code == expected[0] and expected[1] in said and len(said.splitlines()) <= 2
    assert left.exists() == (code != 0)


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """Ranks went on when their launcher was killed."""
    from unival.core.children import end_with_parent

    note = tmp_path / "pid"

    def act():
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            end_with_parent(parent, signal.SIGTERM)
            note.write_text(str(os.getpid()))
            time.sleep(60)
            os._exit(0)
        while not note.exists() or not note.read_text():
            time.sleep(0.01)
        os.kill(parent, signal.SIGKILL)

    code, _ = end_of(tmp_path, act)
    assert code == -signal.SIGKILL
    child = int(note.read_text())
    for _ in range(100):
        try:
            if "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
                return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {child} goes on")
