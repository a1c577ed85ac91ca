"""What each data worker is reading, in memory that it shares with the training process."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray

from torch.utils.data import get_worker_info

Item = tuple[int, int, int]  # epoch, source, row
_WIDTH = 5  # epoch, source, row, since (milliseconds), why the worker could not hand its rows over


@dataclass(frozen=True)
class Current:
    """The row that a worker has in hand, and for how many seconds."""

    worker: int
    item: Item
    seconds: float


class Reading:
    """One line for each worker; a process that reads without workers is worker 0."""

    def __init__(self, workers: int) -> None:
        self._cells: Sequence[int] = RawArray("q", max(1, workers) * _WIDTH)
        self._workers = max(1, workers)

    def begin(self, item: Item) -> None:
        start = self._own()
        self._cells[start : start + 4] = [*item, _now()]  # type: ignore[index]

    def end(self) -> None:
        self._cells[self._own() + 3] = 0  # type: ignore[index]

    def fail(self, error: BaseException) -> None:
        """Note why this worker cannot go on."""
        self._cells[self._own() + 4] = _cause(error)  # type: ignore[index]

    def now(self) -> list[Current]:
        """Rows that are being read."""
        found = []
        for worker in range(self._workers):
            epoch, source, row, since, _ = self._cells[worker * _WIDTH : (worker + 1) * _WIDTH]
            if since:
                found.append(Current(worker, (epoch, source, row), (_now() - since) / 1000))
        return found

    def failure(self) -> int:
        """The error number that a worker left, or 0."""
        return max(self._cells[worker * _WIDTH + 4] for worker in range(self._workers))

    def clear(self) -> None:
        self._cells[:] = [0] * len(self._cells)  # type: ignore[index]

    def _own(self) -> int:
        info = get_worker_info()
        return (info.id if info is not None and info.id < self._workers else 0) * _WIDTH


def _now() -> int:
    return max(1, int(time.monotonic() * 1000))  # the same clock in all processes of a machine


def _cause(error: BaseException) -> int:
    number = getattr(error, "errno", None)
    if number:
        return int(number)
    said = str(error)
    if (
        "No space left" in said
        or "unable to allocate shared memory" in said
        or "Cannot allocate memory" in said
    ):
        return errno.ENOSPC
    return errno.EMFILE if "Too many open files" in said or "ancdata" in said else errno.EIO
