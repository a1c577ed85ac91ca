"""Time limits: of a block of code in the main thread, and of work in any thread that asks for its own."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from unival.errors import OverdueError

_WORK = threading.local()


class _Over(BaseException):
    """Not an Exception: a library in the block that catches those must not catch this."""


@contextmanager
def work_until(moment: float) -> Iterator[None]:
    """Give this thread until ``moment`` (of ``time.monotonic()``) for what the block does and ``in_time`` looks at."""
    before = getattr(_WORK, "until", None)
    _WORK.until = moment
    try:
        yield
    finally:
        _WORK.until = before


def in_time() -> None:
    """Raise OverdueError when the time that this thread was given is over; cheap enough for every step of a loop."""
    until = getattr(_WORK, "until", None)
    if until is not None and time.monotonic() > until:
        raise OverdueError("the time that was given for this is over")


@contextmanager
def time_limit(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise ``error()`` when the block takes longer; 0 is no limit.

    Only the main thread of a process can be interrupted: elsewhere there is no limit. A call into a library that
    does not come back to Python is not interrupted either; who waits for the process must end it.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise _Over

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Over:
        raise error() from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
