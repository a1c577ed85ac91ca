"""WebDataset archives as tables: members that share a name up to its first dot are one row."""

from __future__ import annotations

import json
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from unival.errors import DataError, RowNumber
from unival.media.endings import ENDINGS
from unival.media.names import is_hidden
from unival.media.tar import Member
from unival.tables.base import Table
from unival.tables.index import Index, Write, open_index
from unival.tables.row import Row

TEXTS = ("txt", "text", "caption")
READ = (*TEXTS, "cls", "json")  # members whose content is a value; all others are references
TEXT_BYTES = 16 << 20
_BATCH = 4096


class WebDatasetTable(Table):
    """An uncompressed .tar file, read in place.

    A row has the column ``__key__``, one column for each member by its ending (``jpg``, ``txt``), the keys of its
    ``json``, and under the names of tasks its medium (``image``, ``video``, ``audio``) and its text (``caption``).
    Text members are values, all others references ``archive.tar/member``. ``columns`` are those of the first row.
    A sidecar index holds where each row starts.
    """

    def __init__(self, path: str, *, media_root: str | None = None) -> None:
        self.path = os.fspath(path)
        self.media_root = media_root
        self._archive = os.path.abspath(self.path)
        self._index: Index | None = open_samples(self.path)
        self._identity = (self._index.size, self._index.mtime_ns)
        self._size = len(self._index)
        self.columns = tuple(self[0])

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:
        number = self._position(index)
        start, end = (int(n) for n in self._positions().offsets[number : number + 2, 0])
        place = RowNumber(number + 1)
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != self._identity:
                    raise DataError("the file changed while it was open; start the run again", path=self.path)
                values = self._values(file, start, end, place)
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"cannot be read ({error})", path=self.path, line=place) from None
        return Row(values, self.path, place, self.media_root)

    def matching(self, accept: dict[str, Callable[[Any], bool]]) -> npt.NDArray[np.int64]:
        rows = (n for n, row in enumerate(self) if all(test(row[c]) for c, test in accept.items()))
        return np.fromiter(rows, np.int64)

    def _values(self, file: Any, start: int, end: int, place: RowNumber) -> dict[str, Any]:
        values: dict[str, Any] = {}
        named: dict[str, Any] = {}
        described: set[str] = set()  # what stands before the last dot of texts that have several
        for info in _members(file, start, end):
            key, ending = _split(info.name)
            values["__key__"] = key
            reference = Member.at(self._archive, info.name, info.offset_data, info.size)
            if ending.rpartition(".")[2] in READ:
                text = self._text(file, info, place)
                described.add(ending.rpartition(".")[0])
                if ending.endswith("json"):
                    named = {**self._json(text, info.name, place), **named}
                    continue
                values[ending] = text.strip()
                if ending in TEXTS:
                    named.setdefault("caption", values[ending])
                continue
            values[ending] = reference
            for modality, endings in ENDINGS.items():
                if f".{ending.rpartition('.')[2]}" in endings:
                    named.setdefault(modality, reference)
        if len(described - {""}) > 1:
            raise DataError(
                f"several samples share the name '{values['__key__']}' up to its first dot, where WebDataset ends it: "
                "rename the files, or take 'unival data convert', which splits such names at their last dot",
                path=self.path,
                line=place,
            )
        return {**values, **named}

    def _text(self, file: Any, info: tarfile.TarInfo, place: RowNumber) -> str:
        if info.size > TEXT_BYTES:
            raise DataError(
                f"{info.name} has {info.size} bytes, the limit of a text is {TEXT_BYTES}",
                path=self.path,
                line=place,
            )
        file.seek(info.offset_data)
        try:
            return file.read(info.size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{info.name} is invalid UTF-8 at byte {error.start + 1}; write it as UTF-8",
                path=self.path,
                line=place,
            ) from None

    def _json(self, text: str, name: str, place: RowNumber) -> dict[str, Any]:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name} is not valid JSON ({error})", path=self.path, line=place) from None
        if not isinstance(content, dict):
            raise DataError(f"{name}: expected a JSON object of fields", path=self.path, line=place)
        return content

    def _positions(self) -> Index:
        if self._index is None:
            self._index = open_samples(self.path)
        return self._index

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._index is not None and self._index.sidecar is not None:
            state["_index"] = None  # the copy maps the sidecar itself
        return state


def open_samples(path: str) -> Index:
    """Return the index of an archive's samples, building it if there is no valid one."""
    return open_index(path, scanner=_scan)


def _split(name: str) -> tuple[str, str]:
    """Return (key, ending in lower case) of a member: its folder and name up to the first dot, and the rest."""
    folder, base = posixpath.split(posixpath.normpath(name))
    key, _, ending = base.partition(".")
    return posixpath.join(folder, key), ending.lower()


def _members(file: Any, start: int, end: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of an archive that have an ending, from a header's offset up to another."""
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (info := tar.next()) is not None and (end is None or info.offset < end):
            tar.members = []  # type: ignore[attr-defined]  # it remembers every header otherwise
            hidden = is_hidden(*posixpath.normpath(info.name).split("/"))
            if info.isreg() and not info.issparse() and not hidden and _split(info.name)[1]:
                yield info


def _scan(path: str, write: Write) -> None:
    """Find the offset of each row's first header."""
    starts: list[int] = []
    seen: set[str] = set()
    last = None
    try:
        with open(path, "rb") as file:
            for info in _members(file, 0):
                key = _split(info.name)[0]
                if key == last:
                    continue
                if key in seen:
                    raise DataError(
                        f"the files of sample '{key}' do not stand together; write them one after the other "
                        "(tar --sort=name)",
                        path=path,
                    )
                seen.add(key)
                last = key
                starts.append(info.offset)
                if len(starts) == _BATCH:
                    write(np.array(starts, np.int64)[:, None])
                    starts = []
            end = file.tell()
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(
            f"is not an uncompressed tar archive, or is cut off ({error}); write it again with 'tar cf'",
            path=path,
        ) from None
    if not seen:
        raise DataError("the archive holds no samples: files such as 000001.jpg and 000001.txt", path=path)
    write(np.array([*starts, end], np.int64)[:, None])
