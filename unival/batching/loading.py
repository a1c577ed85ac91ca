"""The batches of one epoch from worker processes.

The workers end with the epoch and leave no descriptor behind. One that dies is replaced and the row it was reading is
named; a row that kills its worker twice, or holds it far beyond the time limit, is left out as unreadable. While no
batch comes, the run can still be stopped.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import multiprocessing.queues
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from unival.batching.reading import Current, Item, Reading
from unival.core.children import end_with_parent
from unival.errors import UnivalError

logger = logging.getLogger(__name__)

_POLL = 1  # seconds between two looks at the workers while no batch comes
_SLACK = 5.0  # seconds beyond twice the time limit of a row after which its worker is killed
_DEATHS = 3  # of workers without a batch between them
_TENSORS = 16  # of a batch, about
_UNSENT = 71  # exit code of a worker that could not hand its rows over (EX_OSERR)


class Rows(Protocol):
    """What the workers read: ``rows[item]``, with the notes that they leave and the rows that are given up."""

    reading: Reading
    given_up: set[Item]
    media_timeout: float

    def __getitem__(self, item: Item) -> Any: ...
    def place(self, item: Item) -> str: ...


class EpochLoader:
    """Batches of rows in the order that is given; iterate once.

    ``ahead``: batches that the workers prepare. ``waiting``: called about once a second while none is ready.
    """

    def __init__(
        self,
        dataset: Rows,
        batches: Sequence[list[Item]],
        collate: Callable[[list[Any]], Any],
        workers: int = 0,
        ahead: int = 0,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.dataset, self.batches, self.collate = dataset, batches, collate
        self.workers, self.ahead, self.waiting = workers, ahead, waiting
        self._begun: Any = None
        self._deaths = 0
        self._last_words: dict[Item, int] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def begin(self) -> None:
        """Start the workers; the first batches are ready when they are asked for."""
        if self.workers and len(self.batches) and self._begun is None:
            self._begun = self._start(0)

    def __iter__(self) -> Iterator[Any]:
        if not self.workers:
            yield from DataLoader(self.dataset, batch_sampler=self.batches, collate_fn=self.collate)  # type: ignore[arg-type]
            return
        given, iterator, self._begun = 0, self._begun, None
        try:
            while given < len(self.batches):
                iterator = iterator or self._start(given)
                try:
                    batch = next(iterator)
                except Exception as error:
                    if _is_timeout(error):
                        self._end_stuck_worker(iterator)
                        self.waiting()
                        continue
                    pids = _dead(iterator) or _dying(iterator, error)
                    if not pids:
                        raise _translated(error) from error
                    close(iterator, kill=True)  # a dead one may hold a lock that the others wait for
                    iterator = None
                    self._bury(pids)
                    continue
                given, self._deaths = given + 1, 0
                if given == len(self.batches):  # nobody asks for more
                    close(iterator)
                    iterator = None
                yield batch
        finally:
            if iterator is not None:
                close(iterator, kill=True)

    def _start(self, position: int) -> Any:
        _check_descriptors(self.workers)
        self.dataset.reading.clear()
        loader: Any = DataLoader(
            cast(Any, self.dataset),
            batch_sampler=self.batches[position:] if position else self.batches,  # type: ignore[arg-type]
            collate_fn=self.collate,
            num_workers=self.workers,
            prefetch_factor=max(2, -(-self.ahead // self.workers)),
            timeout=_POLL,
            worker_init_fn=_Worker(self.dataset),
            pin_memory=torch.cuda.is_available(),
        )
        iterator = iter(loader)
        # torch would raise in the middle of an update; here a death is found when the next batch is due
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return iterator

    def _end_stuck_worker(self, iterator: Any) -> None:
        limit = self.dataset.media_timeout
        for current in self.dataset.reading.now():
            if limit and current.seconds > 2 * limit + _SLACK:
                logger.warning(
                    f"data worker {current.worker} has been reading {self.dataset.place(current.item)} for "
                    f"{current.seconds:.0f} s (--media-timeout {limit:g}); it is killed and the row left out"
                )
                self.dataset.given_up.add(current.item)
                iterator._workers[current.worker].kill()

    def _bury(self, pids: dict[int, tuple[int, int]]) -> None:
        """Note the death of workers, worker -> (process, exit code); the caller starts new ones.

        Raises:
            UnivalError: they cannot hand rows over, or die again and again.
        """
        self._deaths += 1
        failure = self.dataset.reading.failure()
        if failure:
            raise UnivalError(_remedy(failure))
        held = {current.worker: current for current in self.dataset.reading.now()}
        for worker, (pid, code) in pids.items():
            current = held.get(worker)
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            text = f"data worker {worker} (pid {pid}) was {how} while reading {self._named(current)}"
            logger.warning(f"{text}; new workers go on there")
            if current is not None:
                self._last_words[current.item] = self._last_words.get(current.item, 0) + 1
                if self._last_words[current.item] > 1:
                    self.dataset.given_up.add(current.item)
            if self._deaths >= _DEATHS:
                raise UnivalError(
                    f"{text}: the {self._deaths}rd time without a batch between. Look for the memory of the machine "
                    "(a worker that the system kills for it says nothing) and give fewer --num-workers"
                )

    def _named(self, current: Current | None) -> str:
        return self.dataset.place(current.item) if current is not None else "no row"


class _Worker:
    """What a worker does first: end with its parent, leave Ctrl-C to it, and die when it cannot hand rows over."""

    def __init__(self, dataset: Rows) -> None:
        self.reading, self.parent = dataset.reading, os.getpid()

    def __call__(self, number: int) -> None:
        end_with_parent(self.parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The queue prints such errors and goes on, and the training process would wait for the rows for ever.
        multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(self._unsent)  # type: ignore[attr-defined]

    def _unsent(self, error: BaseException, rows: object) -> None:
        self.reading.fail(error)
        os._exit(_UNSENT)


def close(iterator: Any, kill: bool = False) -> None:
    """End the workers of one of torch's iterators and free its descriptors, which it leaves to the garbage collector:
    with short epochs a run would be out of them before that comes. ``kill``: they may be busy, or dead."""
    if kill:
        _abandon(iterator)
    else:
        iterator._shutdown_workers()
    for queue in [*iterator._index_queues, iterator._worker_result_queue]:
        queue.close()
        if queue._thread is not None:
            queue._thread.join(_POLL)
        queue._reader.close()
        queue._writer.close()
    for worker in iterator._workers:
        worker.join(_POLL)
        if worker.exitcode is not None:
            worker.close()


def _abandon(iterator: Any) -> None:
    """What torch's shutdown does, without asking the workers: a dead one may hold a lock of theirs."""
    iterator._shutdown = True
    for worker in iterator._workers:
        worker.kill()
    if hasattr(iterator, "_pin_memory_thread"):
        iterator._pin_memory_thread_done_event.set()
        iterator._pin_memory_thread.join()
    if iterator._worker_pids_set:
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def _check_descriptors(workers: int) -> None:
    """Refuse what would fail half-way: a worker takes a pipe, its own end of it and one for each tensor on the way."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    folder = "/proc/self/fd"
    if soft == resource.RLIM_INFINITY or not os.path.isdir(folder):
        return
    if len(os.listdir(folder)) + 4 * workers + _TENSORS > soft:
        raise UnivalError(_remedy(errno.EMFILE))


def _dead(iterator: Any) -> dict[int, tuple[int, int]]:
    ended = {number: worker for number, worker in enumerate(iterator._workers) if worker.exitcode}
    return {number: (worker.pid, worker.exitcode) for number, worker in ended.items()}


def _dying(iterator: Any, error: Exception) -> dict[int, tuple[int, int]]:
    """As ``_dead`` after a connection to a worker broke off: the system may not have its end on record yet."""
    if not isinstance(error, (ConnectionError, EOFError, FileNotFoundError)):
        return {}
    deadline = time.monotonic() + _POLL
    while not (found := _dead(iterator)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and "timed out after" in str(error)


def _translated(error: Exception) -> Exception:
    """An error of the machinery in words of ours; any other as it is."""
    said = str(error)
    if getattr(error, "errno", 0) == errno.EMFILE or "Too many open files" in said or "ancdata" in said:
        return UnivalError(_remedy(errno.EMFILE))
    return error


def _remedy(number: int) -> str:
    if number == errno.EMFILE:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"too many open files: this process may have {soft} (ulimit -n), and data workers hand over every tensor "
            "of a batch as an open file. Raise the limit (ulimit -n 4096), or give fewer --num-workers, 0 for none"
        )
    if number in (errno.ENOSPC, errno.ENOMEM):
        return (
            "the shared memory (/dev/shm) is full: data workers hand over their batches in it. Give a container more "
            "(--shm-size=2g), a smaller --batch-size, or --num-workers 0"
        )
    return f"data workers cannot hand over their batches: {os.strerror(number)}. Give --num-workers 0"
