"""Processes that end with the one that started them, or by its hand alone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PARENT = "UNIVAL_PARENT"  # the process that starts another one gives its own number
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the system send this process ``number`` when ``parent``, the process that started it, is gone.

    Linux only; elsewhere it does nothing. Call it in the started process, which ends at once when the parent is gone
    already.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def follow_starter() -> None:
    """Where whoever started this program asked for it (``PARENT``): be told to stop, and save, when it is gone."""
    parent = os.environ.pop(PARENT, "")
    if parent.isdecimal():
        end_with_parent(int(parent), signal.SIGTERM)


@contextmanager
def unheard_interrupts() -> Iterator[None]:
    """Processes that are started inside never hear Ctrl-C, which a terminal sends to all of them: each would print an
    error of its own. Who started them hears it, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
