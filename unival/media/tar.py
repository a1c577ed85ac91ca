"""Members of uncompressed tar archives by name, at any place, from any number of processes."""

from __future__ import annotations

import os
import posixpath
import tarfile
from functools import cache

from unival.errors import nearest
from unival.media.names import spellings
from unival.media.source import MediaError


class Member(str):
    """The reference ``archive.tar/member`` with the member's place, so that it is read without an index.

    As a plain string (in a JSON file) it means the same.
    """

    archive: str
    offset: int
    size: int

    @classmethod
    def at(cls, archive: str, member: str, offset: int, size: int) -> Member:
        """Make the reference of a member whose content is ``size`` bytes from ``offset`` of the archive."""
        made = cls(f"{archive}/{member}")
        made.archive, made.offset, made.size = archive, offset, size
        return made

    def read(self) -> bytes:
        """Content of the member. Raises MediaError."""
        return _content(self, self.archive, self.offset, self.size)


def read_member(archive: str, member: str) -> bytes:
    """Content of one member. Raises MediaError (no archive, no member, cut-off archive).

    The archive is opened for each read: no file position is shared between forked workers, and thousands
    of archives need no more than one descriptor.
    """
    index = _index_of(archive)
    name = posixpath.normpath(member)
    place = next((index[form] for form in spellings(name) if form in index), None)
    if place is None:
        raise MediaError(
            f"{archive}/{member}",
            f"the archive of {len(index)} files has no such member.{nearest(name, _similar(name, index))}",
        )
    return _content(f"{archive}/{member}", archive, *place)


def _content(name: str, archive: str, offset: int, size: int) -> bytes:
    try:
        with open(archive, "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
            while 0 < len(data) < size and (part := file.read(size - len(data))):
                data += part
    except OSError as error:
        raise MediaError(name, f"cannot be read ({error.strerror})") from error
    if len(data) != size:
        raise MediaError(name, f"the archive ends after {len(data)} of {size} bytes")
    return data


def members(archive: str) -> list[str]:
    """Names of all files in the archive, in its order. Raises MediaError."""
    return list(_index_of(archive))


def _similar(name: str, index: dict[str, tuple[int, int]]) -> list[str]:
    # Comparing with every name of a large archive would take minutes.
    tail = posixpath.basename(name)
    same = [other for other in index if posixpath.basename(other) == tail]
    return same[:100] or list(index)[:1000]


def _index_of(archive: str) -> dict[str, tuple[int, int]]:
    try:
        status = os.stat(archive)
    except OSError as error:
        raise MediaError(
            archive, "no such archive" if isinstance(error, FileNotFoundError) else str(error)
        ) from error
    return _index(archive, status.st_size, status.st_mtime_ns)


@cache
def _index(archive: str, size: int, mtime: int) -> dict[str, tuple[int, int]]:
    """Member -> (offset, size), built once a process and inherited by forked workers."""
    found: dict[str, tuple[int, int]] = {}
    links: list[tuple[str, str]] = []
    try:
        with tarfile.open(archive, "r:") as tar:
            for info in tar:
                name = posixpath.normpath(info.name)
                if info.issparse():
                    continue
                if info.isreg():
                    found[name] = (info.offset_data, info.size)
                elif info.islnk():
                    links.append((name, posixpath.normpath(info.linkname)))
                # tarfile remembers every header otherwise.
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise MediaError(
            archive, f"is not an uncompressed tar archive ({error}): unpack it or repack it with 'tar cf'"
        ) from error
    for name, target in links:
        if target in found:
            found[name] = found[target]
    return found
