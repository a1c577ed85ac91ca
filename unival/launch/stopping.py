"""A run that is asked to stop saves first: SLURM's pre-emption and time limit, a machine that is taken back."""

from __future__ import annotations

import mmap
import os
import signal
import time
from types import FrameType

STOPPED = 75  # exit code of a run that saved and may go on: "temporary failure, try again" (sysexits.h)
_WHOLE_JOB = 0.5  # seconds within which a signal to a whole job reaches all its processes
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopRequest:
    """Remembers SIGUSR1 and SIGTERM of this process until the training loop looks."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._owner = 0
        self._asked = mmap.mmap(-1, 1)  # shared with forked data workers

    @property
    def made(self) -> bool:
        return self.name is not None

    def watch(self) -> None:
        """Take the signals over; call it in the main thread. Again in the same process, it forgets nothing."""
        if self._owner != os.getpid():
            self.name, self._owner, self._asked = None, os.getpid(), mmap.mmap(-1, 1)
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._owner:
            self.name = signal.Signals(number).name
            self._asked[0] = 1
            return
        # A data worker sits out a signal that its whole job gets, but not one that is meant to end it.
        deadline = time.monotonic() + _WHOLE_JOB
        while not self._asked[0]:
            if time.monotonic() > deadline:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            time.sleep(0.02)


REQUEST = StopRequest()
