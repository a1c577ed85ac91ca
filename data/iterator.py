"""fairseq's epoch iterator over a schedule that is a pure function of (seed, epoch).

The position in an epoch counts rows of all processes. Together with a :class:`Division`, which says what belongs to an
update, it lets a run go on with another number of processes: every update has the rows that it would have had.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from unival.batching.loading import EpochLoader
from unival.batching.reading import Reading
from unival.data.dataset import Failure, Item, SpecDataset
from unival.errors import DataError

# what SpecDataset gave as first batch of an epoch
_FIRST: weakref.WeakKeyDictionary[SpecDataset, dict[int, Any]] = weakref.WeakKeyDictionary()

Schedule = Callable[[int, int], Sequence[list[Item]]]  # of an epoch, without so many rows at its start


@dataclass(frozen=True)
class Division:
    """What an update holds: ``world`` x ``accumulate`` batches of ``rows`` rows, as the run began.

    ``accumulate`` has a number for each epoch, the last for all that follow; ``asked`` is the option
    (``--update-freq``) it was made from, which tells an unchanged command from a changed one.
    """

    world: int
    accumulate: tuple[int, ...]
    rows: int
    asked: tuple[int, ...] = ()

    @classmethod
    def of(cls, cfg: Any) -> Division:
        """Division of a run that begins with this configuration."""
        accumulate = tuple(int(number) for number in cfg.optimization.update_freq)
        world = max(1, cfg.distributed_training.distributed_world_size)
        return cls(world, accumulate, int(cfg.dataset.batch_size or 0), accumulate)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Division:
        return cls(state["world"], tuple(state["accumulate"]), state["rows"], tuple(state["asked"]))

    def state(self) -> dict[str, Any]:
        return {
            "world": self.world,
            "accumulate": list(self.accumulate),
            "rows": self.rows,
            "asked": list(self.asked),
        }

    def batches(self, epoch: int) -> int:
        """Batches of an update, over all processes."""
        return self.world * self.accumulate[min(epoch, len(self.accumulate)) - 1]

    def steps(self, epoch: int, world: int) -> int:
        """Batches of an update on each of ``world`` processes; some may be empty."""
        return -(-self.batches(epoch) // world)

    def update(self, epoch: int) -> int:
        """Rows of an update."""
        return self.batches(epoch) * self.rows

    def going_on(self, saved: Division | None) -> Division:
        """The division of a run that goes on under this one's options: the saved one, unless the batch was changed."""
        if saved is None:
            return self
        same = (self.asked, self.rows) == (saved.asked, saved.rows)
        epochs = range(1, max(len(self.accumulate), len(saved.accumulate)) + 1)
        equal = self.rows == saved.rows and all(self.batches(e) == saved.batches(e) for e in epochs)
        return Division(saved.world, saved.accumulate, saved.rows, self.asked) if same or equal else self


class EpochBatches(Sequence[list[Item]]):
    """Batches of (source, row) with the epoch put in front of each pair, made when asked for."""

    def __init__(self, batches: Sequence[Sequence[Any]], epoch: int, source: int | None = None) -> None:
        self.batches, self.epoch, self.source = batches, epoch, source

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if self.source is not None:
            return [(self.epoch, self.source, row) for row in self.batches[index]]
        return [(self.epoch, source, row) for source, row in self.batches[index]]


class RankBatches(Sequence[list[Item]]):
    """The batches of one of ``world`` processes: of each ``group`` batches (an update) every ``world``-th, filled up
    with empty ones, so that all processes take the same number of steps."""

    def __init__(
        self, batches: Sequence[list[Item]], rank: int, world: int, group: int | None = None, start: int = 0
    ) -> None:
        self.batches, self.rank, self.world, self.start = batches, rank, world, start
        self.group = group or world
        self.steps = -(-self.group // world)

    def __len__(self) -> int:
        groups, rest = divmod(len(self.batches), self.group)
        return max(0, groups * self.steps + -(-rest // self.world) - self.start)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            if index.stop is not None or index.step is not None:
                raise ValueError("only a start is supported: the iterator resumes, it does not sample")
            start = self.start + (index.start or 0)
            return RankBatches(self.batches, self.rank, self.world, self.group, start)
        if index >= len(self):
            raise IndexError(index)
        group, step = divmod(self.start + index, self.steps)
        within = step * self.world + self.rank
        position = group * self.group + within
        return self.batches[position] if within < self.group and position < len(self.batches) else []

    def __iter__(self) -> Iterator[list[Item]]:
        return (self[index] for index in range(len(self)))


class ScheduledIterator(EpochBatchIterator):
    """Batches come from ``schedule(epoch, skipped)``; nothing is reshuffled and nothing is held in lists.

    Equal steps on every rank and every row exactly once per epoch follow from :class:`RankBatches`. ``division``:
    what an update holds in training; without one (validation) batches are dealt out one to each rank.
    """

    def __init__(
        self, dataset: SpecDataset, schedule: Schedule, division: Division | None = None, **settings: Any
    ) -> None:
        self.schedule, self.division = schedule, division
        self.waiting: Callable[[], None] = lambda: None  # called while workers have no batch ready
        self._skipped = {0: 0}  # rows of an epoch that were read in updates of another size
        self._loader: EpochLoader | None = None  # of the latest epoch
        # the engine would hold all batches of an epoch in a list and shuffle it; ours come from the schedule
        super().__init__(dataset, dataset.collater, batch_sampler=(), disable_shuffling=True, **settings)
        dataset.reading = Reading(self.num_workers)

    def _planned(self, epoch: int) -> Sequence[list[Item]]:
        return self.schedule(epoch, self._skipped.get(epoch, 0))

    def __len__(self) -> int:
        return len(self._of_rank(self.epoch))

    def _of_rank(self, epoch: int) -> RankBatches:
        group = self.division.batches(epoch) if self.division else None
        return RankBatches(self._planned(epoch), self.shard_id, self.num_shards, group)

    def begin(self) -> None:
        """Let the data workers of the next epoch start before its first batch is asked for."""
        if self._next_epoch_itr is None:
            self._next_epoch_itr = self._get_iterator_for_epoch(self.next_epoch_idx, shuffle=False)
        if self._loader is not None:
            self._loader.begin()

    @property
    def updates_left(self) -> int:
        """Updates that are still to be made in the current epoch of training."""
        assert self.division is not None
        left = self._cur_epoch_itr.total - self._cur_epoch_itr.n
        return int(-(-left // self.division.steps(self.epoch, self.num_shards)))

    @property
    def first_batch(self) -> Any:
        """What a rank without rows of its own runs, so that all ranks take the same steps.

        Raises:
            DataError: no batch of the data can be read.
        """
        if self.num_shards == 1:
            return {}  # never asked for
        kept = _FIRST.setdefault(self.dataset, {})
        if self.epoch not in kept:  # a validation is always of the same epoch: its batch is read once
            kept.clear()
            kept[self.epoch] = self._read_first()
        return kept[self.epoch]

    def _read_first(self) -> Any:
        for items in self._planned(self.epoch):
            batch = self.collate_fn([self.dataset[item] for item in items])
            if isinstance(batch, Failure):
                batch.raise_()
            if isinstance(batch, list) or batch.get("nsentences"):
                return batch
        raise DataError("no batch of the data can be read: every media file is missing or broken")

    def state_dict(self) -> dict[str, Any]:
        """Position in rows of all processes, and the division; the engine's own entries beside them."""
        state = super().state_dict()
        if self.division is not None:
            done = 0 if state["iterations_in_epoch"] == 0 else self._rows_done()
            state |= {"rows": done, "division": self.division.state()}
        return state

    def _rows_done(self) -> int:
        assert self.division is not None
        updates = self.iterations_in_epoch // self.division.steps(self.epoch, self.num_shards)
        return self._skipped.get(self.epoch, 0) + updates * self.division.update(self.epoch)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position, whatever number of processes and size of updates it was saved with."""
        assert self.division is not None
        self.epoch = state["epoch"]
        self._next_epoch_itr = None
        rows = state.get("rows")
        if rows is None:  # written before positions counted rows: the same processes are taken for granted
            rows = state.get("iterations_in_epoch", 0) * self.num_shards * self.division.rows
        if not rows:
            return
        updates, rest = divmod(rows, self.division.update(self.epoch))
        if rest:  # no update of this size ends there: the epoch is laid out anew from that row on
            self._skipped, updates = {self.epoch: rows}, 0
        offset = updates * self.division.steps(self.epoch, self.num_shards)
        self._next_epoch_itr = self._get_iterator_for_epoch(self.epoch, shuffle=False, offset=offset)
        if self._next_epoch_itr is None:  # the data have become smaller
            self.epoch += 1

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> Any:
        batches = self._of_rank(epoch)
        if offset:
            batches = batches[offset:]
        if not len(batches) and (offset or self._skipped.get(epoch)):
            return None
        this = weakref.ref(self)  # a cycle would keep workers until the garbage collector comes

        def waiting() -> None:
            iterator = this()
            if iterator is not None:
                iterator.waiting()

        loader = self._loader = EpochLoader(
            self.dataset, batches, self.collate_fn, self.num_workers, ahead=self.buffer_size, waiting=waiting
        )
        counting = CountingIterator(_Raising(loader), start=offset)
        if self.skip_remainder_batch:
            counting.take(len(counting) - 1)
        return counting


class _Raising:
    """Raises in the main process what a worker could only hand over as a value."""

    def __init__(self, loader: EpochLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if isinstance(batch, Failure):
                batch.raise_()
            yield batch
