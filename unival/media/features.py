"""Features of frozen networks, kept on disk: computed once, mapped into memory by every process that reads them.

A shelf is a folder with a subfolder for each network and transform, named by their hash. Every process that writes
appends to two files of its own there: features, and an index of them. So nothing is locked, and what a killed process
left half-written is passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unival.core.files import make_folder, replacing, writing
from unival.errors import OutputError

logger = logging.getLogger(__name__)

RECORD = struct.Struct("<32sIII")  # SHA-256 of the medium, width and height of the original, checksum
META, DATA, INDEX = "features.json", ".features", ".index"
LOOKS = 64  # puts between two looks at what the folder holds


@dataclass(frozen=True)
class Place:
    """Where the features of a medium belong: subfolder and medium, with the medium's (width, height)."""

    name: str
    medium: bytes
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Kept:
    """Features (C, *grid) of a medium, and its original (width, height)."""

    features: Tensor
    size: tuple[int, int] | None


@dataclass
class _Part:
    """The files of one process that wrote: records that were read, and the features mapped into memory."""

    records: int = 0
    values: np.ndarray | None = None


class Shelf:
    """Kept features of frozen networks below ``root``.

    ``networks``: modality -> hash of its network's weights; ``limit``: bytes that all features below ``root`` may
    take, after which no more are added. May be handed to other processes at any time.
    """

    def __init__(self, root: str | os.PathLike[str], networks: Mapping[str, str], limit: int) -> None:
        self.root, self.networks, self.limit = Path(root), dict(networks), limit
        self._books: dict[str, _Book] = {}
        self._puts, self._full = 0, False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_books": {}}

    def place(self, modality: str, transform: Mapping[str, Any], medium: bytes | None) -> Place | None:
        """Return the place of a medium under a transform; None where nothing is kept."""
        if medium is None or modality not in self.networks:
            return None
        text = json.dumps([self.networks[modality], modality, dict(transform)], sort_keys=True)
        return Place(hashlib.sha256(text.encode()).hexdigest()[:32], medium)

    def get(self, place: Place | None) -> Kept | None:
        """Return the features at a place, None where there are none (or damaged ones)."""
        return None if place is None else self._book(place.name).get(place.medium)

    def put(self, place: Place, features: Tensor) -> None:
        """Keep features (C, *grid), unless they are there, the limit is reached or the folder cannot be written, which
        is said once."""
        book = self._book(place.name)
        if self._full or place.medium in book:
            return
        if self._puts % LOOKS == 0:
            self._full = used(self.root) + features.nbytes > self.limit
            if self._full:
                logger.warning(
                    f"kept features: '{self.root}' holds {used(self.root) / 1e9:.2f} GB, the limit is "
                    f"{self.limit / 1e9:g} GB; no more are kept. Raise --keep-features-limit, or delete those of "
                    "other networks with unival data features FOLDER --delete"
                )
                return
        self._puts += 1
        try:
            book.put(place, features)
        except (OSError, OutputError) as error:  # what is not kept is computed again
            self._full = True
            logger.warning(f"kept features: no more are kept: {error}")

    def _book(self, name: str) -> _Book:
        if name not in self._books:
            self._books[name] = _Book(self.root / name)
        return self._books[name]


class _Book:
    """One subfolder: features of one shape and type."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, Any] | None = None
        self._found: dict[bytes, tuple[Path, int, tuple[int, int], int]] = {}
        self._parts: dict[Path, _Part] = {}
        self._own: Path | None = None
        self._pid = os.getpid()

    def __contains__(self, medium: bytes) -> bool:
        return medium in self._found

    def get(self, medium: bytes) -> Kept | None:
        if medium not in self._found:
            self._refresh()
        if medium not in self._found or self.meta is None:
            return None
        path, number, size, checksum = self._found[medium]
        values = self._parts[path].values
        assert values is not None
        raw = np.array(values[number])
        if zlib.crc32(raw.tobytes()) != checksum:
            del self._found[medium]
            return None
        features = torch.from_numpy(raw).view(getattr(torch, self.meta["dtype"]))
        return Kept(features.view(self.meta["shape"]), size if any(size) else None)

    def put(self, place: Place, features: Tensor) -> None:
        features = features.detach().cpu().contiguous()
        kind = {"shape": list(features.shape), "dtype": str(features.dtype).removeprefix("torch.")}
        with writing(self.folder):
            self._describe(kind)
            if kind != {key: (self.meta or {})[key] for key in kind}:
                return  # another shape under this name: its medium was read in another way
            if self._own is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._own = self.folder / f"{os.getpid()}-{secrets.token_hex(8)}"
            raw = features.view(-1).view(torch.uint8).numpy().tobytes()
            with open(f"{self._own}{DATA}", "ab") as data:
                data.write(raw)
            with open(f"{self._own}{INDEX}", "ab") as index:
                index.write(RECORD.pack(place.medium, *(place.size or (0, 0)), zlib.crc32(raw)))
        self._refresh()

    def _describe(self, kind: Mapping[str, Any]) -> None:
        if self._read_meta():
            return
        make_folder(self.folder)
        with replacing(self.folder / META) as part:
            part.write_text(json.dumps(kind), encoding="utf-8")
        self._read_meta()

    def _read_meta(self) -> bool:
        if self.meta is None:
            try:
                self.meta = json.loads((self.folder / META).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return False
        return True

    def _refresh(self) -> None:
        """Read what was added to the indexes, and map the features that belong to it."""
        if not self._read_meta() or self.meta is None:
            return
        width = int(np.prod(self.meta["shape"])) * getattr(torch, self.meta["dtype"]).itemsize
        for index in self.folder.glob(f"*{INDEX}"):
            part = self._parts.setdefault(index, _Part())
            data = index.with_suffix(DATA)
            try:
                records = min(index.stat().st_size // RECORD.size, data.stat().st_size // width)
                if records <= part.records:
                    continue
                with open(index, "rb") as file:
                    file.seek(part.records * RECORD.size)
                    content = file.read((records - part.records) * RECORD.size)
                part.values = np.memmap(data, np.uint8, "r", shape=(records, width))
            except OSError:  # deleted in the meantime
                continue
            for number, record in enumerate(RECORD.iter_unpack(content), part.records):
                medium, w, h, checksum = record
                self._found[medium] = (index, number, (w, h), checksum)
            part.records = records


def used(root: str | os.PathLike[str]) -> int:
    """Bytes of all features below a folder."""
    total = 0
    for path in Path(root).glob(f"*/*{DATA}"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


@dataclass(frozen=True)
class Listed:
    """A subfolder: its name, media and bytes, shape and type of the features."""

    name: str
    media: int
    size: int
    shape: tuple[int, ...]
    dtype: str


def listed(root: str | os.PathLike[str]) -> list[Listed]:
    """Return what a folder keeps."""
    found = []
    for path in sorted(Path(root).glob(f"*/{META}")):
        media = sum(index.stat().st_size // RECORD.size for index in path.parent.glob(f"*{INDEX}"))
        size = sum(data.stat().st_size for data in path.parent.glob(f"*{DATA}"))
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            found.append(Listed(path.parent.name, media, size, tuple(meta["shape"]), str(meta["dtype"])))
        except (OSError, ValueError, TypeError, KeyError):
            continue  # none of ours
    return found


def delete(root: str | os.PathLike[str]) -> None:
    """Delete all kept features below a folder, and nothing else there."""
    for each in listed(root):
        shutil.rmtree(Path(root) / each.name)
