"""Processes that end with the one that started them, or by its hand alone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

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


def become(program: Callable[[], int], log: Path) -> NoReturn:
    """Turn a forked process into a program of its own that writes both streams to ``log`` and ends with its code."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(out, number)
    code = 1
    try:
        code = program()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
