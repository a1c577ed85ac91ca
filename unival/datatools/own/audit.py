"""Check every row of a table the way training would read it, and decode a sample of its media."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from unival.batching.batch import Example
from unival.core.sampling import evenly
from unival.errors import DataError, UnivalError
from unival.media import MediaError, MediaLoader
from unival.media.endings import kind_of
from unival.specs import SpecOptions, TaskSpec, all_options
from unival.specs.preparation import prepare_row
from unival.specs.subjects import Subjects
from unival.tables import Row, Table
from unival.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from PIL import Image

# Sizes do not change what is wrong with a row; small ones make the check cheap.
CHEAP = {"patch_image_size": 32, "patch_frame_size": 32, "num_frames": 2, "max_audio_len": 4000}


@dataclass(frozen=True)
class Problem:
    """One row that cannot be used: where it stands, in words, and of which kind ("row" or "media")."""

    place: str
    message: str
    kind: str


@dataclass
class Audit:
    """What a table holds. ``decoded``: rows whose media were decoded in full, not only looked up."""

    rows: int = 0
    decoded: int = 0
    problems: list[Problem] = field(default_factory=list)
    media: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    without_target: int = 0
    longest_source: int = 0
    longest_target: int = 0
    repeated_ids: int = 0

    @property
    def usable(self) -> int:
        return self.rows - len(self.problems)


class _Lookup(MediaLoader):
    """Finds media without decoding them: an image has its true size and no content."""

    def image(self, ref: str | os.PathLike[str] | bytes) -> Image.Image:
        from PIL import Image

        return Image.new("RGB", self.image_size(ref))

    def video(self, ref: str | os.PathLike[str] | bytes, num_frames: int, *args: object) -> np.ndarray:
        self._present(ref)
        return np.zeros((num_frames, 8, 8, 3), np.uint8)

    def audio(self, ref: str | os.PathLike[str] | bytes, rate: int) -> np.ndarray:
        self._present(ref)
        return np.zeros(rate, np.float32)

    def _present(self, ref: str | os.PathLike[str] | bytes) -> None:
        from unival.media.source import open_source

        source, name = self._locate(ref)
        if isinstance(source, str):
            open_source(source, name)


def audit(
    spec: TaskSpec,
    table: Table,
    vocabulary: Vocabulary,
    options: SpecOptions | None = None,
    decode: int = 32,
) -> Audit:
    """Prepare every row as evaluation would, and the evenly spaced ``decode`` rows with their media decoded.

    A bad row never stops the check; it becomes a :class:`Problem` with file, line and column.
    """
    options = options or all_options().from_options(**CHEAP)
    found = Audit(rows=len(table))
    full = table.loader()
    try:
        spec.check(table)
    except DataError as error:
        found.problems.append(Problem(table.path, str(error), "row"))
    lookup = _Lookup(full.root, full.table_dir)
    sampled = set(evenly(range(len(table)), decode))
    ids: set[str] = set()
    subjects = Subjects(spec)
    for number in range(len(table)):
        place = f"{table.path}, row {number + 1}"
        try:
            row = table[number]
            place = row.place
            examples = prepare_row(
                spec,
                row,
                number,
                full if number in sampled else lookup,
                options,
                vocabulary,
                seed=options.seed,
            )
            _count(found, spec, row, examples, options, ids)
            subjects.check(row)
            found.decoded += number in sampled
        except MediaError as error:
            found.problems.append(Problem(place, str(error), "media"))
        except DataError as error:
            found.problems.append(Problem(place, str(error).removeprefix(f"{place}, "), "row"))
        except UnivalError as error:
            found.problems.append(Problem(place, str(error), "row"))
    return found


def _count(
    found: Audit, spec: TaskSpec, row: Row, examples: list[Example], options: SpecOptions, ids: set[str]
) -> None:
    reference = spec.reference(row, options)
    if reference is None:
        found.without_target += 1
    elif not isinstance(reference, tuple):
        found.targets[spec.answer_of(reference)] += 1
    for example in examples:
        found.longest_source = max(found.longest_source, len(example.source))
        found.longest_target = max(found.longest_target, len(example.target))
    value = row.get(spec.modality, None)
    if isinstance(value, str):
        found.media[kind_of(value)] += 1
    name = spec.item_id(row)
    found.repeated_ids += name in ids and not spec.joins_ids
    ids.add(name)
