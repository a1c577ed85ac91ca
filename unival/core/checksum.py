"""Checksums of weight files: written into what we write, compared when it is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
from pathlib import Path

from unival.errors import CheckpointError

KEY, RESERVED = "sha256", "0" * 64  # in the metadata of a safetensors file; reserved until all is written
_METADATA = re.compile(rb'"__metadata__":\s*(\{[^{}]*\})')
_MOST_HEADER = 100 << 20
_BLOCK = 1 << 20
_COMPARED: dict[
    tuple[int, int, int, int], bool
] = {}  # files that were as they had been written: have they checksums


def seal(path: str | Path) -> None:
    """Put the SHA-256 of a safetensors file's tensors into its header, where room was reserved for it.

    The names of the metadata come in order, so that equal tensors make equal files.
    """
    with open(path, "r+b") as file:
        length = _length(file.read(8))
        header = file.read(length)
        place = _METADATA.search(header)
        metadata = json.loads(place[1]) if place else {}
        if place is None or metadata.get(KEY) != RESERVED:
            return
        metadata[KEY] = _digest(path, 8 + length)
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode()
        file.seek(8 + place.start(1))
        file.write(text.ljust(place.end(1) - place.start(1)))


def verify(path: str | Path, anew: bool = False) -> bool:
    """Compare a weight file with the checksums in it; returns whether it has any.

    safetensors: the SHA-256 that :func:`seal` wrote. Files of torch: the CRC-32 of every tensor. Raises
    CheckpointError when content and checksum differ. A process reads a file through for this once (half a second per
    GiB) as long as its place, size and time stay the same; ``anew``: in any case.
    """
    about = os.stat(path)
    state = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    if anew or state not in _COMPARED:
        _COMPARED[state] = _compare(Path(path))
    return _COMPARED[state]


def _compare(path: Path) -> bool:
    with open(path, "rb") as file:
        archive_of_torch = file.read(4) == b"PK\x03\x04"
    if archive_of_torch:
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
            return False  # who reads it says what is wrong
        if damaged is not None:
            raise CheckpointError(f"'{path}' is damaged: '{damaged}' is not what was written; fetch it again")
        return True
    try:
        with open(path, "rb") as file:
            length = _length(file.read(8))
            expected = json.loads(file.read(length)).get("__metadata__", {}).get(KEY, RESERVED)
    except (ValueError, AttributeError, RecursionError, struct.error):
        return False
    if expected == RESERVED or not isinstance(expected, str):
        return False
    if _digest(path, 8 + length) != expected:
        raise CheckpointError(
            f"'{path}' is damaged: its tensors are not those that were written (SHA-256); copy it again"
        )
    return True


def _length(data: bytes) -> int:
    (length,) = struct.unpack("<Q", data)
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    return int(length)


def _digest(path: str | Path, start: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
