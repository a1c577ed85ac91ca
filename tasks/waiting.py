"""How much of the time updates wait for their batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fairseq.logging import metrics


class DataWait:
    """Seconds that this process waited for the batches of its updates, and how many came, since the last reset.

    Without data workers the wait is the time that reading takes.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seconds, self.batches = 0.0, 0

    @property
    def elapsed(self) -> float:
        """Seconds of waiting and of the updates themselves; validations and checkpoints belong to neither."""
        computing = metrics.get_meter("train_inner", "train_wall")  # the engine resets it with its log line
        return self.seconds + (computing.sum if computing is not None else 0.0)

    @property
    def share(self) -> float:
        """Share of :attr:`elapsed` that was waiting, 0 to 1."""
        return round(self.seconds / self.elapsed, 3) if self.elapsed else 0.0


class Waited:
    """Iterates; how long its items took is added to ``wait``."""

    def __init__(self, items: Any, wait: DataWait) -> None:
        self.items, self.wait = items, wait

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self.items)
        while True:
            started = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.wait.seconds += time.perf_counter() - started
            self.wait.batches += 1
            yield item

    def __getattr__(self, name: str) -> Any:  # the bar reads the position of a resumed epoch
        return getattr(self.__dict__["items"], name)


DATA_WAIT = DataWait()  # of the training of this process
