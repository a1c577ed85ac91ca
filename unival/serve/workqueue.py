"""A bounded queue in front of the model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from unival.core.deadline import work_until
from unival.errors import OverdueError

T = TypeVar("T")


class Busy(Exception):
    """No place is free, or a place was held too long; ``str`` says which."""


class WorkQueue:
    """``workers`` threads, and ``waiting`` places more for requests that wait for one.

    A request has its place from before its first byte is read until its work is done, so places bound the
    memory that requests take.
    """

    def __init__(self, workers: int, waiting: int, seconds: float) -> None:
        self.workers, self.places, self.seconds = workers, workers + waiting, seconds
        self._pool = self._new_pool()
        self._lock = threading.Lock()
        self._taken = 0

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.workers, thread_name_prefix="model")

    @property
    def taken(self) -> int:
        """Requests that are being received, wait or are in the model."""
        return self._taken

    async def run(self, receive: Callable[[], Awaitable[Callable[[], T]]]) -> T:
        """Take a place, receive the request, do its work on a worker and return the result.

        Raises Busy where it only waited, OverdueError where the work takes too long (it is stopped at its next step),
        and whatever ``receive`` and the work raise.
        """
        with self._lock:
            if self._taken >= self.places:
                raise Busy(f"all {self.places} places are taken: try again")
            self._taken += 1
        try:
            work = await receive()
            until = time.monotonic() + self.seconds
            future = self._pool.submit(_within, work, until)
        except BaseException:
            self._leave()
            raise
        # the place is free when the work ends, whoever still waits for it
        future.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except asyncio.TimeoutError:
            if future.cancelled():
                raise Busy(f"no answer within {self.seconds:g} seconds: try again") from None
            raise OverdueError(self._said) from None
        except OverdueError:
            raise OverdueError(self._said) from None

    @property
    def _said(self) -> str:
        return f"this takes more than {self.seconds:g} seconds, the limit: ask for less, or when the service is idle"

    def _leave(self, _: Future[T] | None = None) -> None:
        with self._lock:
            self._taken -= 1

    def close(self) -> None:
        """Finish what has begun, forget what waits. An application may be started again afterwards."""
        pool, self._pool = self._pool, self._new_pool()
        pool.shutdown(wait=True, cancel_futures=True)


def _within(work: Callable[[], T], until: float) -> T:
    with work_until(until):
        return work()
