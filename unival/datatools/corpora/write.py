"""Writing tables: complete or not at all, with true shuffles, in memory that does not grow with the file."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unival.core.files import Output, make_folder, writing
from unival.core.seeding import rng_for
from unival.datatools.corpora.rows import Dropped, Row


class TableWriter:
    """One table on its way to disk. ``shuffles``: 0 writes ``NAME.tsv`` in the given order, N writes
    ``NAME_1.tsv`` to ``NAME_N.tsv``, each a seeded permutation of its own."""

    def __init__(self, output: Output, place: Path, shuffles: int, seed: int, ids: bool = True) -> None:
        self.output, self.place, self.shuffles, self.seed = output, place, shuffles, seed
        self._path = (
            output.new(place) if not shuffles else place.with_name(f".{place.name}.rows-{os.getpid()}")
        )
        make_folder(self._path.parent)
        with writing(place, self._path):
            self._file = self._path.open("wb")
        self._offsets = array("q", [0])
        self._ids: set[str] | None = set() if ids else None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def add(self, row: Row) -> None:
        """Write one row. Raises Dropped for an id that the table has, or a cell that would break the table."""
        if any("\t" in cell or "\n" in cell or "\r" in cell for cell in row):
            raise Dropped("tab or line break in an id or a file name")
        if self._ids is not None:
            if row[0] in self._ids:
                raise Dropped("id twice")
            self._ids.add(row[0])
        with writing(self.place, self._path):
            size = self._file.write("\t".join(row).encode("utf-8") + b"\n")
        self._offsets.append(self._offsets[-1] + size)

    def close(self) -> None:
        """Finish the table; one without rows is not written."""
        with writing(self.place, self._path):
            self._file.close()
        if not len(self):
            self.output.forget(self.place)
        elif self.shuffles:
            offsets = np.frombuffer(self._offsets, dtype=np.int64)
            for number in range(1, self.shuffles + 1):
                order = rng_for(self.seed, number, 0, f"shuffle {self.place.stem}").permutation(len(self))
                part = self.output.new(self._numbered(number))
                with writing(self._numbered(number), part):
                    permuted([(self._path, offsets)], order, part)
            self._path.unlink()

    def stale(self) -> list[Path]:
        """Return files of an earlier run that this table should have replaced and does not."""
        if not self.shuffles:
            return [self.place] if not len(self) and self.place.exists() else []
        first = self.shuffles + 1 if len(self) else 1
        return [place for n in range(first, 100) if (place := self._numbered(n)).exists()]

    def _numbered(self, number: int) -> Path:
        return self.place.with_name(f"{self.place.stem}_{number}{self.place.suffix}")

    def discard(self) -> None:
        self._file.close()
        if self.shuffles:
            self._path.unlink(missing_ok=True)


def permuted(parts: Sequence[tuple[Path, npt.NDArray[np.int64]]], order: Iterable[int], target: Path) -> int:
    """Write the rows of several files in ``order`` (numbers count through all files); returns the rows.

    ``parts``: files with int64 (rows + 1,) byte offsets of their lines.
    """
    starts = np.cumsum([0, *(len(offsets) - 1 for _, offsets in parts)])
    handles = [os.open(path, os.O_RDONLY) for path, _ in parts]
    count = 0
    try:
        with target.open("wb") as out:
            for index in order:
                part = int(np.searchsorted(starts, index, side="right")) - 1
                offsets = parts[part][1]
                begin, end = int(offsets[index - starts[part]]), int(offsets[index - starts[part] + 1])
                line = os.pread(handles[part], end - begin, begin)
                out.write(line if line.endswith(b"\n") else line + b"\n")
                count += 1
    finally:
        for handle in handles:
            os.close(handle)
    return count
