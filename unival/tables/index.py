"""Where each record of a file starts: scanned once, kept in a sidecar file, shared by all processes.

The sidecar (``<table>.idx``) is a 64-byte header and int64 numbers: the byte offset of every record, then
one final offset, the end of the last record. For CSV each offset is paired with its line number, since a
quoted field may hold line breaks. It holds numbers only, so reading one from an unknown source runs no code.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unival.errors import DataError

Offsets = npt.NDArray[np.int64]
Write = Callable[[Offsets], object]
Scanner = Callable[
    [str, Write], None
]  # passes the offset (n, 1) of every record, and last the end, to the second

SUFFIX = ".idx"
VERSION = 1
_MAGIC = b"UNIVALIX"
_HEADER = struct.Struct("<8sIIqqqq")  # magic, version, width, table size, table mtime_ns, records, kind
_HEADER_BYTES = 64
_CHUNK = 4 << 20  # large enough for full disk speed, small enough to stay in a processor's cache
_NEWLINE, _QUOTE, _COMMA = 10, 34, 44
_CSV, _OTHER = 1, 2  # kinds of records; 0 are lines

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """Record positions of one file.

    ``offsets`` is int64 of shape (records + 1, width): column 0 the byte offset, column 1 (width 2 only) the
    1-based line number. ``sidecar`` is None when nothing could be written and the numbers live in memory.
    """

    offsets: Offsets
    size: int
    mtime_ns: int
    sidecar: str | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def line(self, record: int) -> int:
        """Return the 1-based line of the file on which ``record`` starts."""
        return int(self.offsets[record, 1]) if self.offsets.shape[1] == 2 else record + 1


def open_index(path: str, *, quoted: bool = False, scanner: Scanner | None = None) -> Index:
    """Return the index of ``path``, building it if there is no valid one.

    ``quoted``: records follow CSV quoting (RFC 4180), so a line break inside quotes does not end one.
    ``scanner``: finds the records of a file that is no text.
    The sidecar is looked for beside the table, then in the cache folder (``$UNIVAL_CACHE``, else
    ``$XDG_CACHE_HOME/unival``, else ``~/.cache/unival``); it is written to the first of the two that can be
    written. One process builds while the others wait for its lock. A sidecar whose size, modification time
    or format version do not fit the table is rebuilt.

    Raises DataError for an absent, unreadable or empty file, for UTF-16 text, for a file that changes
    during the scan and, with ``quoted``, for quotes that do not follow the rules.
    """
    kind = _OTHER if scanner is not None else int(quoted)
    status = _status(path)
    places = sidecar_places(path)
    for place in places:
        found = _load(place, status, kind)
        if found is not None:
            return found
    for place in places:
        if not _writable_folder(os.path.dirname(place)):
            continue
        try:
            with _lock(place + ".lock"):
                status = _status(path)
                found = _load(place, status, kind)  # another process may have built it while we waited
                if found is None:
                    _build_file(path, place, kind, scanner)
                    found = _load(place, _status(path), kind)
        except OSError as error:  # full disk, folder without permission, quota
            log.info("cannot write %s (%s)", place, error)
            continue
        if found is None:
            raise DataError("the file keeps changing; wait until it is complete", path=path)
        return found
    warnings.warn(
        f"{path}: neither {' nor '.join(os.path.dirname(p) or '.' for p in places)} can be written, so the "
        "index is kept in memory and built by every process; set UNIVAL_CACHE to a writable folder",
        stacklevel=2,
    )
    parts: list[Offsets] = []
    before = _scan(path, quoted, parts.append, scanner)
    return Index(np.concatenate(parts), before.st_size, before.st_mtime_ns, None)


def sidecar_places(path: str) -> list[str]:
    """Return where the sidecar of ``path`` may be, in order of preference."""
    absolute = os.path.abspath(path)
    base = os.environ.get("UNIVAL_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        base = os.path.join(home, "unival")
    key = hashlib.sha256(os.path.realpath(path).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    name = f"{os.path.basename(absolute)[:80]}-{key}{SUFFIX}"
    return [absolute + SUFFIX, os.path.join(os.path.abspath(base), "index", name)]


def _status(path: str) -> os.stat_result:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(
            "there is no such file; check the path (relative paths start at the "
            f"description's folder or at {os.getcwd()})",
            path=path,
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(
            "is not a regular file; a table is a .tsv, .csv, .jsonl, .parquet, .arrow, .tar or .yaml file",
            path=path,
        )
    if status.st_size == 0:
        raise DataError("the file is empty; a table needs at least one row", path=path)
    return status


def _writable_folder(folder: str) -> bool:
    """Tell whether a new file may be put into ``folder`` (creating a cache folder if needed)."""
    parent = folder
    while not os.path.exists(parent) and parent != os.path.dirname(parent):
        parent = os.path.dirname(parent)
    try:
        # root may write anywhere: a folder whose owner took every write bit away is still meant read-only
        if not os.stat(parent).st_mode & 0o222 or not os.access(parent, os.W_OK | os.X_OK):
            return False
        os.makedirs(folder, exist_ok=True)
        return True
    except OSError:
        return False


@contextmanager
def _lock(path: str) -> Iterator[None]:
    """Hold an exclusive lock between processes; the lock file is gone afterwards."""
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks: every process builds, the last rename wins
            log.info("no lock on %s (%s)", path, error)
            break
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        os.close(handle)  # the former holder removed the file we waited on: take the new one
    try:
        yield
    finally:
        Path(path).unlink(missing_ok=True)
        os.close(handle)


def _load(place: str, status: os.stat_result, kind: int) -> Index | None:
    """Return the sidecar's index if it fits the table as it is now, else None."""
    try:
        with open(place, "rb") as handle:
            header = handle.read(_HEADER_BYTES)
            length = os.fstat(handle.fileno()).st_size
            if len(header) < _HEADER_BYTES:
                return None
            magic, version, width, size, mtime_ns, records, found = _HEADER.unpack_from(header)
            if (magic, version, size, mtime_ns) != (_MAGIC, VERSION, status.st_size, status.st_mtime_ns):
                return None
            if found != kind or width != _width(kind) or records < 1:
                return None
            if length != _HEADER_BYTES + 8 * width * (records + 1):
                return None
            shape = (records + 1, width)
            mapped = np.memmap(handle, dtype="<i8", mode="r", offset=_HEADER_BYTES, shape=shape)
    except OSError:
        return None
    # a plain array over the same map: indexing np.memmap itself is several times slower
    return Index(np.asarray(mapped).view(np.ndarray), size, mtime_ns, place)


def _width(kind: int) -> int:
    """Numbers of a record: CSV has its line beside its offset."""
    return 2 if kind == _CSV else 1


def _build_file(path: str, place: str, kind: int, scanner: Scanner | None) -> None:
    temporary = f"{place[: -len(SUFFIX)]}.{os.getpid()}.{time.monotonic_ns()}.tmp{SUFFIX}"
    started = time.monotonic()
    try:
        with open(temporary, "xb") as out:
            out.write(bytes(_HEADER_BYTES))
            before = _scan(
                path, kind == _CSV, lambda part: out.write(np.ascontiguousarray(part, "<i8").data), scanner
            )
            width = _width(kind)
            records = (out.tell() - _HEADER_BYTES) // (8 * width) - 1
            out.seek(0)
            out.write(_HEADER.pack(_MAGIC, VERSION, width, before.st_size, before.st_mtime_ns, records, kind))
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, place)
    finally:
        Path(temporary).unlink(missing_ok=True)
    log.info("indexed %s: %d records in %.1f s -> %s", path, records, time.monotonic() - started, place)


def _scan(path: str, quoted: bool, write: Write, scanner: Scanner | None = None) -> os.stat_result:
    """Pass the offsets of all records to ``write`` in order; return the file's status before the scan."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}; check its permissions", path=path) from None
    try:
        before = os.fstat(handle)
        if scanner is not None:
            scanner(path, write)
        else:
            _scan_text(path, handle, before.st_size, quoted, write)
        after = os.fstat(handle)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError("changed while it was being indexed; wait until it is complete", path=path)
        return before
    finally:
        os.close(handle)


def _scan_text(path: str, handle: int, size: int, quoted: bool, write: Write) -> None:
    head = os.pread(handle, 3, 0)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("is UTF-16 text; save it as UTF-8", path=path, line=1)
    start = 3 if head == b"\xef\xbb\xbf" else 0
    end = _content_end(handle, start, size)
    if end == start:
        raise DataError("the file is empty; a table needs at least one row", path=path)
    (_scan_quoted if quoted else _scan_lines)(path, handle, start, end, write)


def _content_end(handle: int, start: int, end: int) -> int:
    """Return the offset behind the last byte that is not a line break: empty last lines are no rows."""
    while end > start:
        block = os.pread(handle, min(_CHUNK, end - start), max(start, end - _CHUNK))
        kept = len(block.rstrip(b"\r\n"))
        end -= len(block) - kept
        if kept:
            break
    return end


def _chunks(path: str, handle: int, start: int, end: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield (offset, bytes) through one buffer that is used again, so memory does not grow with the file."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    buffer = np.empty(min(_CHUNK, end - start), np.uint8)
    view = buffer.data
    position = start
    while position < end:
        try:
            count = os.preadv(handle, [view[: min(len(buffer), end - position)]], position)
        except OSError as error:
            raise DataError(f"cannot be read at byte {position}: {error.strerror}", path=path) from None
        if count == 0:
            raise DataError("became shorter while it was being indexed; wait until it is complete", path=path)
        yield position, buffer[:count]
        position += count


def _scan_lines(path: str, handle: int, start: int, end: int, write: Write) -> None:
    write(np.array([[start]], np.int64))
    for position, data in _chunks(path, handle, start, end):
        write((np.flatnonzero(data == _NEWLINE) + (position + 1)).reshape(-1, 1))
    write(np.array([[end]], np.int64))


def _scan_quoted(path: str, handle: int, start: int, end: int, write: Write) -> None:
    """Record starts of a CSV file: line breaks with an even number of quotes before them.

    The count is only right if a quote inside an unquoted field is refused, hence the check of what stands
    before each opening quote.
    """
    write(np.array([[start, 1]], np.int64))
    quotes_before, lines_before, last, record_line = 0, 0, _NEWLINE, 1
    for position, data in _chunks(path, handle, start, end):
        breaks = np.flatnonzero(data == _NEWLINE)
        quotes = np.flatnonzero(data == _QUOTE)
        opening = quotes[quotes_before % 2 :: 2]
        previous = np.where(opening > 0, data[opening - 1], last)
        stray = opening[(previous != _COMMA) & (previous != _NEWLINE) & (previous != _QUOTE)]
        if len(stray):
            raise DataError(
                "a quote inside an unquoted CSV field; put the whole field in quotes, "
                "with the inner quote doubled",
                path=path,
                line=lines_before + 1 + int(np.searchsorted(breaks, stray[0])),
            )
        outside = (quotes_before + np.searchsorted(quotes, breaks)) % 2 == 0
        lines = lines_before + 2 + np.flatnonzero(outside)
        write(np.stack([breaks[outside] + (position + 1), lines], axis=1))
        record_line = int(lines[-1]) if len(lines) else record_line
        quotes_before += len(quotes)
        lines_before += len(breaks)
        last = int(data[-1])
    if quotes_before % 2:
        raise DataError(
            "the record that starts here opens a quote that is never closed", path=path, line=record_line
        )
    write(np.array([[end, lines_before + 2]], np.int64))
