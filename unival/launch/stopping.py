"""A run that is asked to stop saves first: SLURM's pre-emption and time limit, Ctrl-C, a terminal that is closed."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

STOPPED = 75  # exit code of a run that saved and may go on: "temporary failure, try again" (sysexits.h)
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_INTERRUPTED = 128 + signal.SIGINT
_WHOLE_JOB = (
    0.5  # seconds within which a signal to a whole job reaches all its processes, from several sides maybe
)


class StopRequest:
    """Remembers a signal of this process until the training loop looks.

    ``at_once``: there is nothing to save yet and nobody to wait for, so that a signal ends the process. A second
    Ctrl-C always does. ``leaving``: what is called then.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.at_once = False
        self.leaving: list[Callable[[], None]] = []
        self.since = 0.0
        self._owner = 0
        self._asked = mmap.mmap(-1, 1)  # shared with forked data workers

    @property
    def made(self) -> bool:
        return self.name is not None

    @property
    def seconds(self) -> float:
        """How long ago the request was made; 0 without one."""
        return time.monotonic() - self.since if self.made else 0.0

    def watch(self) -> None:
        """Take the signals over; call it in the main thread. Again in the same process, it forgets nothing."""
        if self._owner != os.getpid():
            self.name, self._owner, self._asked = None, os.getpid(), mmap.mmap(-1, 1)
            self.at_once, self.leaving = False, []
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            self._sit_out(number)
            return
        again = self.made and self.seconds > _WHOLE_JOB
        if not self.made:
            self.name, self.since = signal.Signals(number).name, time.monotonic()
            self._asked[0] = 1
        if self.at_once:
            _say(f"stopped by {self.name} before the first update; the same command begins again")
            self.leave(STOPPED)
        elif number == signal.SIGINT and again:
            _say("ended at once; the same command goes on from the last checkpoint")
            self.leave(_INTERRUPTED)
        elif number == signal.SIGINT and self.since + _WHOLE_JOB > time.monotonic():
            _say("the run ends and saves after this update; Ctrl-C once more ends it at once")

    def leave(self, code: int) -> NoReturn:
        """End this process now, its data workers and what it would leave behind first."""
        for worker in multiprocessing.active_children():
            worker.kill()
        for call in self.leaving:
            with contextlib.suppress(Exception):
                call()
        os._exit(code)

    def _sit_out(self, number: int) -> None:
        """A data worker sits out a signal that its whole job gets, but not one that is meant to end it."""
        deadline = time.monotonic() + _WHOLE_JOB
        while not self._asked[0]:
            if time.monotonic() > deadline:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            time.sleep(0.02)


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(OSError):  # whoever read it may be gone
            os.write(2, f"{text}\n".encode())


REQUEST = StopRequest()
