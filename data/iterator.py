"""fairseq's epoch iterator over a schedule that is a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fairseq.data.iterators import BufferedIterator, EpochBatchIterator

from unival.data.dataset import Failure, Item, SpecDataset
from unival.errors import DataError

Schedule = Callable[[int], Sequence[list[Item]]]


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
    """Every ``world``-th batch of a schedule, padded with empty batches to equal length on all ranks."""

    def __init__(self, batches: Sequence[list[Item]], rank: int, world: int, start: int = 0) -> None:
        self.batches, self.rank, self.world, self.start = batches, rank, world, start

    def __len__(self) -> int:
        return max(0, -(-len(self.batches) // self.world) - self.start)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            if index.stop is not None or index.step is not None:
                raise ValueError("only a start is supported: the iterator resumes, it does not sample")
            return RankBatches(self.batches, self.rank, self.world, self.start + (index.start or 0))
        if index >= len(self):
            raise IndexError(index)
        position = (self.start + index) * self.world + self.rank
        return self.batches[position] if position < len(self.batches) else []

    def __iter__(self) -> Iterator[list[Item]]:
        return (self[index] for index in range(len(self)))


class ScheduledIterator(EpochBatchIterator):
    """Batches come from ``schedule(epoch)``; nothing is reshuffled and nothing is held in lists.

    Equal steps on every rank and every row exactly once per epoch follow from :class:`RankBatches`.
    """

    def __init__(self, dataset: SpecDataset, schedule: Schedule, **settings: Any) -> None:
        self.schedule = schedule
        super().__init__(dataset, dataset.collater, batch_sampler=(), disable_shuffling=True, **settings)

    def __len__(self) -> int:
        return -(-len(self.schedule(self.epoch)) // self.num_shards)

    @property
    def first_batch(self) -> Any:
        """What a rank without rows of its own runs, so that all ranks take the same steps.

        Raises:
            DataError: no batch of the data can be read.
        """
        if self.num_shards == 1:
            return {}  # never asked for
        for items in self.schedule(self.epoch):
            batch = self.collate_fn([self.dataset[item] for item in items])
            if isinstance(batch, Failure):
                batch.raise_()
            if isinstance(batch, list) or batch.get("nsentences"):
                return batch
        raise DataError("no batch of the data can be read: every media file is missing or broken")

    def ordered_batches(self, epoch: int, fix_batches_to_gpus: bool, shuffle: bool) -> Sequence[list[Item]]:
        return RankBatches(self.schedule(epoch), self.shard_id, self.num_shards)

    def _get_iterator_for_epoch(self, *args: Any, **kwargs: Any) -> Any:
        counting = super()._get_iterator_for_epoch(*args, **kwargs)
        if counting is not None:
            if isinstance(counting._itr, BufferedIterator):
                counting._itr._iterable = _Ending(counting._itr._iterable)
            counting._itr = _raising(counting._itr)
        return counting


class _Ending:
    """A loader whose workers are told to go when the last batch was taken.

    The engine's buffer stops there without asking for more. The workers would live until the loader is garbage,
    where torch can no longer tell them and waits five seconds, once an epoch.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        try:
            yield from batches
        finally:
            if hasattr(batches, "_shutdown_workers"):
                batches._shutdown_workers()


def _raising(batches: Iterator[Any]) -> Iterator[Any]:
    """Raise in the main process what a worker could only hand over as a value."""
    for batch in batches:
        if isinstance(batch, Failure):
            batch.raise_()
        yield batch
