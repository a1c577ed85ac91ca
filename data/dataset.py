"""Examples of one or several tables, decoded on access and collated per modality group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq.data import FairseqDataset

from unival.batching.batch import Example, collate
from unival.batching.reading import Item, Reading
from unival.core.deadline import time_limit
from unival.errors import DataError, UnivalError
from unival.media import MediaError, MediaLoader
from unival.specs import SpecOptions, TaskSpec
from unival.specs.preparation import prepare_row
from unival.tables import Table
from unival.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class DataSource:
    """A table read under one task description.

    ``group`` names the sub-batch that its examples join; without it, image and text examples form one
    group, video and audio examples the other (reference behaviour).
    """

    name: str
    table: Table
    spec: TaskSpec
    media: MediaLoader
    options: SpecOptions
    group: str | None = None

    def group_of(self, example: Example) -> str:
        """Name of the sub-batch of an example of this source."""
        return self.group or ("image" if example.modality in (None, "image") else "video")


@dataclass(frozen=True)
class Loaded:
    """Examples of one row with the names of their groups."""

    source: str
    examples: list[tuple[str, Example]]


@dataclass(frozen=True)
class Broken:
    """A row whose media could not be read in training: skipped, counted and listed."""

    source: str
    row_id: str
    reason: str


@dataclass(frozen=True)
class Failure:
    """A row that must stop the run. Carried as a value: an exception would leave a worker process with
    its traceback in place of its message."""

    message: str

    def raise_(self) -> None:
        raise DataError(self.message)


class SpecDataset(FairseqDataset):
    """Maps (epoch, source, row) to examples.

    The epoch is part of the item, so that what a worker process returns depends on nothing else:
    augmentation, frames and negatives are functions of (seed, epoch, row).
    """

    def __init__(
        self,
        sources: Sequence[DataSource],
        vocabulary: Vocabulary,
        seed: int,
        training: bool,
        split_groups: bool = False,
        media_timeout: float = 0.0,
    ) -> None:
        self.media_timeout = media_timeout  # seconds for a row; 0 is no limit
        self.reading = Reading(0)
        self.given_up: set[Item] = set()  # rows that ended the worker which read them
        self.split_groups = split_groups
        self.sources = list(sources)
        self.vocabulary = vocabulary
        self.seed = seed
        self.training = training
        self.sizes = np.array([len(source.table) for source in self.sources], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def __getitem__(self, item: Item) -> Loaded | Broken | Failure:
        """Examples of one row.

        Unreadable media give a :class:`Broken` in training and a :class:`Failure` in evaluation; a row
        that does not hold what its task needs always gives a :class:`Failure`.
        """
        epoch, source_index, row_index = item
        source = self.sources[source_index]
        place = self.place(item)
        self.reading.begin(item)
        try:
            if item in self.given_up:
                raise MediaError(place, "the data workers that read it had to be replaced")
            with time_limit(self.media_timeout, lambda: MediaError(place, self._too_slow)):
                row = source.table[row_index]
                place = row.place
                examples = prepare_row(
                    source.spec,
                    row,
                    row_index,
                    source.media,
                    source.options,
                    self.vocabulary,
                    seed=self.seed,
                    training=self.training,
                    epoch=epoch,
                    source=source.name,
                )
        except MediaError as error:
            return Broken(source.name, place, str(error)) if self.training else Failure(f"{place}: {error}")
        except UnivalError as error:
            return Failure(str(error))
        finally:
            self.reading.end()
        return Loaded(source.name, [(source.group_of(example), example) for example in examples])

    def place(self, item: Item) -> str:
        """Table and row of an item."""
        return f"{self.sources[item[1]].table.path}, row {item[2] + 1}"

    @property
    def _too_slow(self) -> str:
        return f"took longer to read than {self.media_timeout:g} s (--media-timeout)"

    def collater(self, samples: list[Loaded | Broken | Failure]) -> Any:
        """Collate rows: a batch, or with ``split_groups`` a list with one batch per group.

        The groups of a list weigh equally in the loss (reference behaviour: image and video). A batch has
        the keys of :func:`unival.batching.batch.collate`, ``source`` (name of its first row's table), ``group`` and
        ``broken``: the rows skipped for broken media, with the first batch. An empty list (the padding of
        a rank that has no rows left) gives an empty dict; a row that stops the run gives its Failure.
        """
        for sample in samples:
            if isinstance(sample, Failure):
                return sample
        broken = [sample for sample in samples if isinstance(sample, Broken)]
        loaded = [sample for sample in samples if isinstance(sample, Loaded)]
        groups: dict[str, list[Example]] = {}
        for sample in loaded:
            for group, example in sample.examples:
                groups.setdefault(group if self.split_groups else "", []).append(example)
        batches = [
            {**collate(groups[name], pad=self.vocabulary.pad), "group": name, "source": loaded[0].source}
            for name in sorted(groups)
        ]
        if not batches:
            return {"broken": broken, "nsentences": 0, "ntokens": 0} if broken else {}
        batches[0]["broken"] = broken
        return batches if self.split_groups else batches[0]

    def num_tokens(self, index: int) -> int:
        return 1

    def size(self, index: int) -> int:
        return 1

    def ordered_indices(self) -> np.ndarray:
        return np.arange(len(self))
