"""A run that does not move ends by itself, and says where it stood.

Every batch is a beat. When none comes for the limit, the process prints the Python stacks of all its threads and of its
data workers and the rows it had last, and ends with an exit code of its own. All processes of a run wait for the one
that hangs, so that each says so. After a request to stop the limit is short.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from unival.launch.stopping import REQUEST, STOPPED

HUNG = 76  # exit code
_GRACE = 25.0  # seconds without a batch after a request to stop
_GRACE_TOGETHER = 60.0  # where the first of several processes may be saving meanwhile
_SHOWN = 16  # rows


class Watchdog:
    """One of a process. ``limit``: seconds without a beat; 0 is none, and none counts before the first beat."""

    def __init__(self) -> None:
        self.limit = 0.0
        self.together = False
        self.reading: Callable[[], Sequence[str]] = lambda: ()
        self._rows: Sequence[str] = ()
        self._last = 0.0
        self._pauses = 0
        self._owner = 0

    def start(self) -> None:
        """Begin to watch this process."""
        if self._owner == os.getpid():
            return
        self._owner, self._last, self._pauses = os.getpid(), 0.0, 0
        with contextlib.suppress(ValueError, OSError, AttributeError):  # standard error may be no file
            faulthandler.register(signal.SIGUSR2, all_threads=True)  # data workers inherit it
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def beat(self, rows: Sequence[str] = ()) -> None:
        """A batch moves."""
        self._last = time.monotonic()
        if rows:
            self._rows = rows

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While something takes as long as it takes: a checkpoint is written, a validation is scored."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if self._last:
                self._last = time.monotonic()

    def _watch(self) -> None:
        while True:
            time.sleep(0.5)
            if self._pauses:
                continue
            idle = time.monotonic() - self._last if self._last else 0.0
            grace = _GRACE_TOGETHER if self.together else _GRACE
            if REQUEST.made and min(REQUEST.seconds, idle or REQUEST.seconds) > grace:
                begun = bool(self._last)
                self._end(
                    f"{REQUEST.name} {REQUEST.seconds:.0f} s ago, and no batch since",
                    HUNG if begun else STOPPED,
                )
            if self.limit and idle > self.limit:
                self._end(f"no batch has moved for {idle:.0f} s (--hang-timeout {self.limit:g})", HUNG)

    def _end(self, why: str, code: int) -> None:
        rank = os.environ.get("RANK", "0")
        rows = ", ".join(self._rows[:_SHOWN]) or "none yet"
        lines = [
            f"rank {rank} ({socket.gethostname()}, pid {os.getpid()}) ends: {why}",
            f"its last rows: {rows}",
        ]
        with contextlib.suppress(Exception):
            lines += self.reading()
        with contextlib.suppress(OSError):
            os.write(2, ("\n".join(lines) + "\nPython stacks:\n").encode())
            faulthandler.dump_traceback(file=sys.stderr.fileno(), all_threads=True)
        for worker in multiprocessing.active_children():
            if worker.pid:
                with contextlib.suppress(OSError):
                    os.kill(worker.pid, signal.SIGUSR2)
        time.sleep(0.5)
        REQUEST.leave(code)


WATCHDOG = Watchdog()
