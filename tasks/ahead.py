"""Data workers that begin before somebody waits for them.

A validation's workers begin with the update before it, those of the next epoch with the validation at the end of this
one. Without that everybody waits until processes have started and the first batch is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unival.tasks.trainer import UnivalTrainer

Make = Callable[[], Any]  # gives a ScheduledIterator
_VALID = 0  # epoch of a validation


class Ahead:
    """Iterators that have begun, each to be taken once."""

    def __init__(self, trainer: UnivalTrainer) -> None:
        self.trainer, self.cfg = trainer, trainer.cfg
        self._begun: dict[tuple[str, int], Any] = {}

    def take(self, subset: str, epoch: int, make: Make) -> Any:
        """The iterator of a subset: the one that has begun, else a new one."""
        iterator = self._begun.pop((subset, epoch), None)
        if iterator is None:
            return make()
        self.trainer.reset_dummy_batch(iterator.first_batch)
        return iterator

    def take_validation(self, subset: str, make: Make) -> Any:
        return self.take(subset, _VALID, make)

    def validation(self, position: Any, make: Callable[[str], Any]) -> None:
        """Called after an update: begin the validation that follows the next. ``position``: the epoch's iterator."""
        subset = self.cfg.dataset.valid_subset.split(",")[0]
        if not self.cfg.dataset.disable_validation and self._validates(position):
            self._begin(subset, _VALID, lambda: make(subset))

    def epoch(self, position: Any, make: Callable[[int], Any]) -> None:
        """Called when a validation begins: at the end of an epoch, begin the one that follows."""
        task, optimization = self.trainer.task, self.cfg.optimization
        if not position.end_of_epoch() or task.has_sharded_data(self.cfg.dataset.train_subset):
            return
        epoch, updates = position.next_epoch_idx, self.trainer.get_num_updates()
        over = optimization.max_epoch and epoch > optimization.max_epoch
        if not over and not (optimization.max_update and updates >= optimization.max_update):
            self._begin(self.cfg.dataset.train_subset, epoch, lambda: make(epoch))

    def _validates(self, position: Any) -> bool:
        """Whether the engine will validate after the next update, unless a stop or a failure comes before."""
        data, update = self.cfg.dataset, self.trainer.get_num_updates() + 1
        if update < data.validate_after_updates:
            return False
        if update == self.cfg.optimization.max_update:
            return True
        intervals = [data.validate_interval_updates]
        if position.updates_left > 1:
            intervals.append(self.cfg.checkpoint.save_interval_updates)
        elif position.epoch % data.validate_interval == 0:
            return True
        return any(interval > 0 and update % interval == 0 for interval in intervals)

    def _begin(self, subset: str, epoch: int, make: Make) -> None:
        if not self.cfg.dataset.num_workers or (subset, epoch) in self._begun:
            return
        dummy = self.trainer._dummy_batch  # what a rank without rows runs belongs to what is being read now
        iterator = make()
        iterator.begin()
        self.trainer._dummy_batch = dummy
        self._begun[subset, epoch] = iterator
