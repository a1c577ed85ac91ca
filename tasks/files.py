"""Checkpoint files that neither a kill nor a full disk can destroy."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.file_io import PathManager

from unival.core.files import replacing, writing
from unival.errors import OutputError

logger = logging.getLogger(__name__)

LAST = "checkpoint_last.pt"
_LEFT = ("*.pt.tmp", "*.part", ".*.part.*")  # unfinished files of a killed run
_MIB = 1 << 20


class AtomicFiles(PathManager):
    """The engine's file functions, with every checkpoint appearing at once or not at all.

    fairseq writes one file and copies it over the others in place, so that a kill during the copy leaves no
    good ``checkpoint_last.pt``. Here a copy is a second name of the same content (a hard link; a real copy
    where the file system has none), put in place by a rename.
    """

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        part = Path(f"{dst_path}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        try:
            try:
                os.link(src_path, part)
            except OSError:
                with writing(dst_path, part):
                    shutil.copyfile(src_path, part)
            os.replace(part, dst_path)
        finally:
            part.unlink(missing_ok=True)
        return True


def write_checkpoint(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint, read it back and compare its checksums; then only does it get its name.

    Raises:
        OutputError: there is no room, or what was read back is not what was written. Nothing is left, and a file of
            that name is as it was.
    """
    need, free = nbytes(state), shutil.disk_usage(Path(path).parent).free
    if need > free:
        raise OutputError(
            f"cannot write {path}: it takes {need / _MIB:,.0f} MiB and {free / _MIB:,.0f} MiB are free there"
        )
    with replacing(path) as part:
        torch.save(state, part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # the name must not appear before the content
        with zipfile.ZipFile(part) as archive:
            damaged = archive.testzip()
        if damaged:
            raise OutputError(
                f"cannot write {path}: read back, '{damaged}' in it is damaged; look at the disk"
            )


def nbytes(value: Any) -> int:
    """Bytes of all tensors in nested dictionaries and lists, each storage once."""
    found: dict[int, int] = {}

    def walk(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            storage = part.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, Mapping):
            for inner in part.values():
                walk(inner)
        elif isinstance(part, (list, tuple)):
            for inner in part:
                walk(inner)

    walk(value)
    return sum(found.values())


def check_room(folder: Path, each: int, files: int) -> None:
    """Before the first step: is there room for ``files`` checkpoints of ``each`` bytes?

    Raises:
        OutputError: not even for one beside the one that it will replace.
    """
    free = shutil.disk_usage(folder).free
    text = f"{folder}: a checkpoint takes about {each / _MIB:,.0f} MiB and {free / _MIB:,.0f} MiB are free"
    if free < each:
        raise OutputError(f"{text}. Free space, or give another --save-dir")
    if free < each * (files + 1):
        logger.warning(f"{text}; this run keeps {files} and needs room for one more while it writes")


def tidy(folder: Path, fallback: str | None) -> None:
    """What a killed run left in its folder goes; what it had to save elsewhere comes home.

    Raises:
        OutputError: there is still no room for it.
    """
    for pattern in _LEFT:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    spare, home = Path(fallback or folder) / LAST, folder / LAST
    if not fallback or not spare.is_file():
        return
    if home.is_file() and home.stat().st_mtime_ns >= spare.stat().st_mtime_ns:
        return
    with replacing(home) as part:
        shutil.copyfile(spare, part)
    spare.unlink()
    logger.info(f"{home} comes from {spare}, where it was saved while there was no room")
