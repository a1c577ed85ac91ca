"""What every table is, and the part shared by all tables that are one indexed file."""

from __future__ import annotations

import itertools
import os
import weakref
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unival.errors import ConfigError, DataError
from unival.media.loader import MediaLoader
from unival.media.names import absolute
from unival.media.source import DEFAULT_LIMITS, Limits
from unival.tables.index import Index, open_index
from unival.tables.row import Row

MAX_RECORD_BYTES = 256 << 20
_SCAN_BYTES = 4 << 20


class Table(ABC):
    """Rows by number. ``columns``: the names rows have; ``media_root``: where media references start."""

    path: str
    columns: tuple[str, ...]
    media_root: str | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Row:
        """Return row ``index`` (negative from the end). IndexError outside, DataError for a bad row."""

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    @abstractmethod
    def matching(self, accept: dict[str, Callable[[Any], bool]]) -> npt.NDArray[np.int64]:
        """Return, ascending, the numbers of the rows for which every column's test holds."""

    def loader(self, limits: Limits = DEFAULT_LIMITS) -> MediaLoader:
        """Return what reads the media that the rows refer to."""
        return MediaLoader(self.media_root, os.path.dirname(absolute(self.path)), limits)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that hold the rows."""
        return (self.path,)

    def _position(self, index: int) -> int:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"row {index} of {self.path}, which has {size} rows")
        return int(index) + size if index < 0 else int(index)


class FileTable(Table):
    """A file of records, read by ``pread`` at the offsets of its index.

    Reads do not go through a memory map of the file: a row costs one system call, resident memory does not
    grow with the rows touched, processes that share the descriptor after a fork do not disturb each other,
    and a file cut short by another program is an error instead of a bus error. A pickled copy reopens the
    file and refuses one that has changed.
    """

    quoted = False

    def __init__(self, path: str, media_root: str | None = None) -> None:
        self.path = os.fspath(path)
        self.media_root = media_root
        self.columns = ()
        self._first = 0  # records before the first row: 1 with a header line
        self._handle: int | None = None
        self._index: Index | None = open_index(self.path, quoted=self.quoted)
        self._identity = (self._index.size, self._index.mtime_ns)
        self._records = len(self._index)

    @abstractmethod
    def _parse(self, raw: bytes, record: int) -> Sequence[Any] | dict[str, Any]:
        """Return the cells of one record; DataError if it is malformed."""

    @abstractmethod
    def _values(self, cells: Any) -> dict[str, Any]:
        """Return the cells by column name."""

    def __len__(self) -> int:
        return self._records - self._first

    def __getitem__(self, index: int) -> Row:
        record = self._position(index) + self._first
        cells = self._parse(self._raw(record), record)
        return Row(self._values(cells), self.path, self._line(record), self.media_root)

    def matching(self, accept: dict[str, Callable[[Any], bool]]) -> npt.NDArray[np.int64]:
        found = []
        for record, raw in self._raws():
            values = self._values(self._parse(raw, record))
            for column, test in accept.items():
                if column not in values:
                    Row(values, self.path, self._line(record))[
                        column
                    ]  # raises the error that names the place
                if not test(values[column]):
                    break
            else:
                found.append(record - self._first)
        return np.array(found, np.int64)

    def _line(self, record: int) -> int:
        return self._positions().line(record)

    def record(self, index: int) -> bytes:
        """Return the bytes of a row as they stand in the file, without the line break at their end."""
        return self._raw(self._position(index) + self._first)

    @property
    def head(self) -> bytes:
        """The bytes of the header line, empty for a table without one."""
        return self._raw(0) if self._first else b""

    def _positions(self) -> Index:
        if self._index is None:
            self._check(os.stat(self.path) if os.path.exists(self.path) else None)
            self._index = open_index(self.path, quoted=self.quoted)
        return self._index

    def _check(self, status: os.stat_result | None) -> None:
        if status is None or (status.st_size, status.st_mtime_ns) != self._identity:
            raise DataError(
                "the file changed while it was open; start again to index it anew", path=self.path
            )

    def _open(self) -> int:
        if self._handle is None:
            try:
                handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except OSError as error:
                raise DataError(
                    f"cannot be read: {error.strerror}; check its permissions", path=self.path
                ) from None
            weakref.finalize(self, os.close, handle)  # a __del__ would come too late at the end of a program
            self._handle = handle
        self._check(os.fstat(self._handle))
        return self._handle

    def _read(self, start: int, count: int) -> bytes:
        handle = self._open()
        try:
            data = os.pread(handle, count, start)
        except OSError as error:
            raise DataError(f"cannot be read at byte {start}: {error.strerror}", path=self.path) from None
        if len(data) != count:
            self._check(None)
        return data

    def _raw(self, record: int) -> bytes:
        offsets = self._positions().offsets
        start, stop = int(offsets[record, 0]), int(offsets[record + 1, 0])
        if stop - start > MAX_RECORD_BYTES:
            raise DataError(
                f"the row has {stop - start} bytes, the limit is {MAX_RECORD_BYTES}; "
                "check that the file is a text table, and keep large media in files or a tar",
                path=self.path,
                line=self._line(record),
            )
        return _without_break(self._read(start, stop - start))

    def _raws(self) -> Iterator[tuple[int, bytes]]:
        """Yield (record, bytes) of all rows, reading many records per system call."""
        offsets = self._positions().offsets[:, 0]
        record = self._first
        while record < self._records:
            target = int(offsets[record]) + _SCAN_BYTES
            stop = max(record + 1, int(np.searchsorted(offsets, target, side="right")) - 1)
            if stop == record + 1:
                yield record, self._raw(record)
            else:
                bounds = offsets[record : stop + 1].tolist()
                block = self._read(bounds[0], bounds[-1] - bounds[0])
                for number, (start, end) in enumerate(itertools.pairwise(bounds), record):
                    yield number, _without_break(block[start - bounds[0] : end - bounds[0]])
            record = stop

    def _text(self, raw: bytes, record: int) -> str:
        """Decode one record; DataError for NUL bytes (not text) and for anything that is not UTF-8."""
        nul = raw.find(b"\0")
        if nul >= 0:
            raise DataError(
                f"NUL byte at byte {nul + 1} of the row; the file is damaged or not UTF-8 text",
                path=self.path,
                line=self._line(record),
            )
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            offset = int(self._positions().offsets[record, 0]) + error.start
            raise DataError(
                f"invalid UTF-8: byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the row "
                f"(offset {offset} of the file); save the file as UTF-8",
                path=self.path,
                line=self._line(record),
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__, _handle=None)
        if self._index is not None and self._index.sidecar is not None:
            state["_index"] = None  # the copy maps the sidecar itself
        return state


def _without_break(raw: bytes) -> bytes:
    return raw[: -2 if raw.endswith(b"\r\n") else -1] if raw.endswith(b"\n") else raw.removesuffix(b"\r")


class ConcatTable(Table):
    """Several tables one after the other; a row keeps its own file, line and media root.

    ``path``: what they are called together, else their paths.
    """

    def __init__(self, tables: Sequence[Table], path: str | None = None) -> None:
        if not tables:
            raise ConfigError("concat needs at least one table")
        self.tables = tuple(tables)
        self._ends = np.cumsum([len(t) for t in self.tables]).tolist()
        self.path = path or ",".join(t.path for t in self.tables)
        shared = set.intersection(*(set(t.columns) for t in self.tables))
        self.columns = tuple(c for c in self.tables[0].columns if c in shared)
        roots = {t.media_root for t in self.tables}
        self.media_root = roots.pop() if len(roots) == 1 else None

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Row:
        position = self._position(index)
        which = bisect_right(self._ends, position)
        return self.tables[which][position - (self._ends[which - 1] if which else 0)]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file for table in self.tables for file in table.files)

    def matching(self, accept: dict[str, Callable[[Any], bool]]) -> npt.NDArray[np.int64]:
        starts = [0, *self._ends[:-1]]
        return np.concatenate([t.matching(accept) + s for t, s in zip(self.tables, starts, strict=True)])
