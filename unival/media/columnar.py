"""Rows and cells of Parquet and Arrow files, at any place, from any number of processes.

Both formats hold their rows in blocks (Parquet: row groups, Arrow: record batches) of columns. Text is read for a
whole block and kept while there is room; media are read when they are asked for, by the reference
``file.parquet/row/column`` (rows count from 0).
"""

from __future__ import annotations

import json
import mmap
import os
import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from unival.core.installation import install_extra
from unival.errors import ConfigError, DataError, RowNumber
from unival.media.source import MediaError

ENDINGS = (".parquet", ".arrow", ".feather")
KEPT_BYTES = 64 << 20  # of decoded blocks, for each open file and process
OPEN_FILES = 32
_REFERENCE = re.compile(r"(.+\.(?:parquet|arrow|feather))/(\d+)/(.+)", re.DOTALL | re.IGNORECASE)
_CONTENT = {"bytes", "path"}  # the fields of an image, a sound or a video of Hugging Face's datasets


def pyarrow() -> Any:
    """Import pyarrow; ConfigError with the command that installs it."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"Parquet and Arrow files need pyarrow ({error}): {install_extra('parquet')}"
        ) from None
    return pyarrow


class ColumnarFile(ABC):
    """One open file. ``columns``: names in order; ``media``: those that hold files' contents."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._kept: OrderedDict[tuple[int, tuple[str, ...]], tuple[Any, int]] = OrderedDict()
        self._room = KEPT_BYTES
        schema, sizes = self._start()
        self.columns: tuple[str, ...] = tuple(schema.names)
        self.media = frozenset(name for name in schema.names if _is_media(schema.field(name).type))
        self.texts = tuple(name for name in self.columns if name not in self.media)
        self._labels = _labels(schema)
        self._starts: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    @abstractmethod
    def _start(self) -> tuple[Any, list[int]]:
        """Open the file; return its schema and the number of rows of each block."""

    @abstractmethod
    def _read(self, block: int, columns: tuple[str, ...]) -> Any:
        """Return a table or record batch of some columns of a block."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int) -> dict[str, Any]:
        """Return a row's values by column: media as references, class labels by their names."""
        block = int(np.searchsorted(self._starts, number, side="right")) - 1
        offset = number - int(self._starts[block])
        texts = self._block(block, self.texts).slice(offset, 1).to_pylist()[0] if self.texts else {}
        return self._values(number, texts)

    def column_rows(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row, values of some columns) of all rows, a block at a time."""
        texts = tuple(name for name in self.texts if name in columns)
        for block, start in enumerate(self._starts[:-1].tolist()):
            rows: Any = ({} for _ in range(int(self._starts[block + 1]) - start))
            if texts:
                rows = self._block(block, texts).to_pylist()
            for number, values in enumerate(rows, start):
                yield number, {name: self._value(number, name, values) for name in columns}

    def cell(self, number: int, column: str) -> bytes | str:
        """Return the medium of a cell: its content, or the path that stands there in its place."""
        name = f"{self.path}/{number}/{column}"
        if column not in self.columns:
            raise MediaError(name, f"there is no such column; the file has {', '.join(self.columns)}")
        if number >= len(self):
            raise MediaError(name, f"the file has {len(self)} rows")
        block = int(np.searchsorted(self._starts, number, side="right")) - 1
        try:
            values = self._block(block, (column,)).column(column)
        except DataError as error:
            raise MediaError(name, error.expected) from error
        value = values[number - int(self._starts[block])].as_py()
        self._used(len(value) if isinstance(value, bytes) else 1 << 16)
        if isinstance(value, list):
            if len(value) != 1:
                raise MediaError(name, f"holds {len(value)} media, one was expected")
            value = value[0]
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not value:
            raise MediaError(name, "holds neither content nor a path")
        return value

    def _values(self, number: int, texts: dict[str, Any]) -> dict[str, Any]:
        return {name: self._value(number, name, texts) for name in self.columns}

    def _value(self, number: int, name: str, texts: dict[str, Any]) -> Any:
        if name in self.media:
            return f"{self.path}/{number}/{name}"
        value = texts[name]
        names = self._labels.get(name)
        if names is None or value is None:
            return value
        return names[value] if 0 <= value < len(names) else None

    def _block(self, number: int, columns: tuple[str, ...]) -> Any:
        key = (number, columns)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        pa = pyarrow()
        before = pa.total_allocated_bytes()
        try:
            block = self._read(number, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            first, last = (int(n) for n in self._starts[number : number + 2])
            raise DataError(
                f"rows {first + 1} to {last} cannot be read ({' '.join(str(error).split())[:200]}); "
                "the file is damaged, write it anew",
                path=self.path,
                line=RowNumber(first + 1),
            ) from error
        # what lies in the file's own memory map costs nothing and counts as a page
        cost = max(1 << 12, pa.total_allocated_bytes() - before)
        self._room -= cost
        self._kept[key] = (block, cost)
        for old in list(self._kept):
            # the newest block of texts and that of media stay: reading in order uses both in turn
            if self._room < 0 and any(k[1] == old[1] for k in reversed(self._kept) if k != old):
                self._room += self._kept.pop(old)[1]
        return block

    @property
    def media_bytes(self) -> int:
        """Bytes that reading one medium takes at most, where that is more than its own."""
        return 0

    def _used(self, count: int) -> None:
        """Note that ``count`` bytes of a memory map were touched."""
        return


class ParquetFile(ColumnarFile):
    """A .parquet file; a block is a row group."""

    def _start(self) -> tuple[Any, list[int]]:
        pa = pyarrow()
        try:
            self._file = pa.parquet.ParquetFile(self.path)
            groups = self._file.metadata
            sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            _refuse(self.path, "a Parquet file", error)
        return self._file.schema_arrow, sizes

    @property
    def media_bytes(self) -> int:
        largest = 0
        for number in range(self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(number)
            parts = (group.column(n) for n in range(group.num_columns))
            sizes = [p.total_uncompressed_size for p in parts if p.path_in_schema.split(".")[0] in self.media]
            largest = max(largest, sum(sizes))
        return largest

    def _read(self, block: int, columns: tuple[str, ...]) -> Any:
        return self._file.read_row_group(block, columns=list(columns), use_threads=False)


class ArrowFile(ColumnarFile):
    """An .arrow or .feather file, the stream or the file form; a block is a record batch.

    The file is mapped, so a batch is read where it lies. Pages are given back as they are used: resident memory
    does not grow with the rows touched.
    """

    def _start(self) -> tuple[Any, list[int]]:
        pa = pyarrow()
        self._touched = 0
        try:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            buffer = pa.py_buffer(self._map)
            if self._map[:6] == b"ARROW1":
                self._reader = pa.ipc.open_file(buffer)
                # the rows of a compressed batch are counted by decoding its first column alone
                first = pa.ipc.open_file(buffer, options=pa.ipc.IpcReadOptions(included_fields=[0]))
                sizes = [first.get_batch(n).num_rows for n in range(first.num_record_batches)]
                schema = self._reader.schema
            else:
                self._reader = None
                schema, sizes = self._walk(buffer)
        except (pa.ArrowException, OSError, ValueError) as error:
            _refuse(self.path, "an Arrow file", error)
        return schema, sizes

    def _walk(self, buffer: Any) -> tuple[Any, list[int]]:
        """Find the batches of a stream; one with dictionaries is read as a whole."""
        pa = pyarrow()
        with pa.ipc.open_stream(buffer) as stream:
            self._schema = stream.schema
            if any(pa.types.is_dictionary(field.type) for field in self._schema):
                self._whole = list(stream)
                return self._schema, [batch.num_rows for batch in self._whole]
        self._whole = []
        self._messages = []
        sizes = []
        for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(buffer)):
            if message.type == "record batch":
                sizes.append(pa.ipc.read_record_batch(message, self._schema).num_rows)
                self._messages.append(message)
        return self._schema, sizes

    def _read(self, block: int, columns: tuple[str, ...]) -> Any:
        pa = pyarrow()
        if self._reader is not None:
            batch = self._reader.get_batch(block)
        elif self._whole:
            batch = self._whole[block]
        else:
            batch = pa.ipc.read_record_batch(self._messages[block], self._schema)
        return batch.select(list(columns))

    def _used(self, count: int) -> None:
        self._touched += count
        if self._touched > KEPT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


_open: OrderedDict[str, tuple[tuple[int, int, int], ColumnarFile]] = OrderedDict()


def open_columnar(path: str) -> tuple[ColumnarFile, tuple[int, int]]:
    """Return a file, opened once a process, and what it is known again by: size and time in ns.

    Raises DataError for a file that is absent, empty, cut off or of another format.
    """
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(
            "there is no such file; check the path"
            if isinstance(error, FileNotFoundError)
            else f"cannot be read: {error.strerror}",
            path=path,
        ) from None
    state = (os.getpid(), status.st_size, status.st_mtime_ns)
    known = _open.get(path)
    if known is None or known[0] != state:
        if not status.st_size:
            raise DataError("the file is empty; a table needs at least one row", path=path)
        kind = ParquetFile if path.lower().endswith(".parquet") else ArrowFile
        known = _open[path] = (state, kind(path))
        while len(_open) > OPEN_FILES:
            _open.popitem(last=False)
    _open.move_to_end(path)
    return known[1], state[1:]


def file_of(reference: str) -> str | None:
    """Return the file of a reference ``file.parquet/row/column``, None for any other."""
    match = _REFERENCE.fullmatch(reference)
    return match.group(1) if match is not None else None


def read_cell(reference: str) -> bytes | str | None:
    """Return the medium of a reference ``file.parquet/row/column``, a path that stands there in its place, or None
    when it is no such reference. MediaError when it cannot be read."""
    match = _REFERENCE.fullmatch(reference)
    if match is None or not os.path.isfile(match.group(1)):
        return None
    path, row, column = match.groups()
    try:
        return open_columnar(path)[0].cell(int(row), column)
    except DataError as error:
        raise MediaError(reference, error.expected) from error


def _refuse(path: str, what: str, error: Exception) -> NoReturn:
    said = " ".join(str(error).split())[:200]
    raise DataError(f"is not {what}, or is cut off ({said}); write or copy it again", path=path) from error


def _is_media(kind: Any) -> bool:
    types = pyarrow().types
    kind = getattr(kind, "storage_type", kind)
    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return {kind.field(n).name for n in range(kind.num_fields)} == _CONTENT
    return any(
        test(kind)
        for test in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    )


def _labels(schema: Any) -> dict[str, list[str]]:
    """Names of the class labels that Hugging Face's datasets writes beside the numbers, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in schema.names
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
