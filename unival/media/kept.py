"""Decoded media kept on disk: each is decoded once, by whichever process reads it first.

Every medium is a file of its own (.npy, with a trailer that NumPy passes over), put in place by a rename. So nothing is
locked, any number of processes, ranks and runs share a folder, and a kill leaves nothing that could be read.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unival.core.files import replacing
from unival.errors import OutputError

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

TRAILER = struct.Struct("<III")  # checksum of all before it, width and height of the original
ENDING = ".npy"
LOOKS = 64  # puts between two looks at what the folder holds


class KeptMedium(NamedTuple):
    """What a decoder gave, and (width, height) of the original where it may be smaller."""

    values: np.ndarray
    size: tuple[int, int]


class KeptMedia:
    """Decoded media below ``root``.

    ``versions``: libraries that decode, by name; ``limit``: bytes that all media below ``root`` may take, after which
    no more are added. May be handed to other processes at any time.
    """

    def __init__(self, root: str | os.PathLike[str], versions: Mapping[str, str], limit: int) -> None:
        self.root, self.versions, self.limit = Path(root), dict(versions), limit
        self._puts, self._full = 0, False

    def key(self, medium: bytes | None, *reading: Any) -> str | None:
        """Return the name of a medium (its identity) that is read with these arguments; None where it has none."""
        if medium is None:
            return None
        text = json.dumps([medium.hex(), self.versions, *map(str, reading)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str | None) -> KeptMedium | None:
        """Return a kept medium; None where there is none, or a damaged one."""
        if key is None:
            return None
        try:
            content = bytearray(self._place(key).read_bytes())
        except OSError:
            return None
        if len(content) < TRAILER.size:
            return None
        checksum, width, height = TRAILER.unpack_from(content, len(content) - TRAILER.size)
        if zlib.crc32(memoryview(content)[: -TRAILER.size]) != checksum:
            return None
        head = io.BytesIO(content[:256])
        np.lib.format.read_magic(head)
        shape, _, kind = np.lib.format.read_array_header_1_0(head)
        values = np.frombuffer(content, kind, int(np.prod(shape)), head.tell()).reshape(shape)
        return KeptMedium(values, (width, height))

    def put(self, key: str | None, medium: np.ndarray | Image.Image, size: tuple[int, int] = (0, 0)) -> None:
        """Keep a decoded medium, unless the limit is reached or the folder cannot be written, which is said once."""
        if key is None or self._full:
            return
        values = np.ascontiguousarray(medium)
        if self._puts % LOOKS == 0 and used(self.root) + values.nbytes > self.limit:
            self._end(f"'{self.root}' holds its limit of {self.limit / 1e9:g} GB; raise --keep-media-limit")
            return
        self._puts += 1
        file = io.BytesIO()
        np.lib.format.write_array(file, values, version=(1, 0))
        content = file.getbuffer()
        place = self._place(key)
        try:
            with replacing(place) as part, open(part, "wb") as out:
                out.write(content)
                out.write(TRAILER.pack(zlib.crc32(content), *size))
        except (OSError, OutputError) as error:  # what is not kept is decoded again
            self._end(str(error))

    def _end(self, reason: str) -> None:
        self._full = True
        logger.warning(f"kept media: no more are kept: {reason}")

    def _place(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}{ENDING}"


def used(root: str | os.PathLike[str]) -> int:
    """Bytes of all media kept below a folder."""
    total = 0
    for path in Path(root).glob(f"*/*{ENDING}"):
        try:
            total += path.stat().st_size
        except OSError:  # deleted in the meantime
            continue
    return total
