"""Unpacking of published archives: nothing outside the folder, nothing over a file that is there."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from unival.errors import CheckpointError

DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, EOFError, NotImplementedError,
    RuntimeError, FileExistsError, NotADirectoryError,
)  # fmt: skip
NOISE = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|\._)")


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, gives: Sequence[str] = ()) -> list[Path]:
    """Unpack a zip or tar archive into ``folder``; returns the files that it put there.

    A folder that all members lie in is left out when that is how ``gives`` (names expected below ``folder``)
    are found. Files that are there already stay. Raises CheckpointError, with nothing unpacked, for members
    that would land elsewhere, links and devices, contents that do not fit on the disk, and a damaged archive.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _members(archive) as members:
        size, free = sum(member.size for member in members), shutil.disk_usage(folder.parent).free
        if size > free:
            raise CheckpointError(f"{archive}: {size} bytes do not fit on the disk of {folder} ({free} free)")
        names = _shortened([member.name for member in members], folder, gives)
        if not members:
            raise CheckpointError(f"{archive} is empty")
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            for member, name in zip(members, names, strict=True):
                target = Path(work) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            return [place for name in names if (place := _put(Path(work) / name, folder / name))]


def _put(file: Path, place: Path) -> Path | None:
    if place.exists():
        return None
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(file, place)
    return place


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """The files in an archive, all names checked."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield _checked(
                    archive,
                    [_of_zip(archive, opened, info) for info in opened.infolist() if not info.is_dir()],
                )
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened_tar:
                found = [_of_tar(archive, opened_tar, info) for info in opened_tar if not info.isdir()]
                yield _checked(archive, found)
        else:
            raise CheckpointError(f"{archive} is neither a zip nor a tar archive")
    except DAMAGED as error:
        raise CheckpointError(f"{archive} is damaged: {error}; remove it and fetch it again") from None


def _of_zip(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = (info.external_attr >> 16) & 0o170000
    if kind not in (0, 0o100000):
        raise CheckpointError(
            f"{archive} holds '{info.filename}', which is a link or a device; it was not unpacked"
        )
    return _Member(info.filename, info.file_size, lambda: opened.open(info))


def _of_tar(archive: Path, opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if not info.isreg():
        raise CheckpointError(
            f"{archive} holds '{info.name}', which is a link or a device; it was not unpacked"
        )

    def read() -> IO[bytes]:
        stream = opened.extractfile(info)
        assert stream is not None, "a regular file has a stream"
        return stream

    return _Member(info.name, info.size, read)


def _checked(archive: Path, members: list[_Member]) -> list[_Member]:
    for member in members:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith(("/", "\\")) or ".." in parts or re.search(r"[\\:\0]", member.name):
            raise CheckpointError(
                f"{archive} holds '{member.name}', which leads out of the folder; nothing was unpacked"
            )
    return [member for member in members if not NOISE.search(member.name)]


def _shortened(names: list[str], folder: Path, gives: Sequence[str]) -> list[str]:
    """Names below the folder: without the folder that all lie in, when the expected ones are found that way."""
    plain = [str(PurePosixPath(name)) for name in names]
    tops = {name.split("/")[0] for name in plain}
    if len(tops) != 1 or not all("/" in name for name in plain):
        return plain
    inner = [name.split("/", 1)[1] for name in plain]
    better = len(set(gives) & set(inner)) > len(set(gives) & set(plain))
    return inner if better or (not gives and tops == {folder.name}) else plain
