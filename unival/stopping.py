"""A run that is asked to stop saves first: SLURM's pre-emption and time limit, a machine that is taken back."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOPPED = 75  # exit code of a run that saved and may go on: "temporary failure, try again" (sysexits.h)
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopRequest:
    """Remembers SIGUSR1 and SIGTERM of this process until the training loop looks."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._owner = 0

    @property
    def made(self) -> bool:
        return self.name is not None

    def watch(self) -> None:
        """Take the signals over; call it in the main thread. Again in the same process, it forgets nothing."""
        if self._owner != os.getpid():
            self.name, self._owner = None, os.getpid()
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner and self.name is not None:
            # A data worker sits out the signal that its whole job gets, but not one sent to end it.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.name = signal.Signals(number).name


REQUEST = StopRequest()
