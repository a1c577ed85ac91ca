"""Checkpoint files that a kill cannot destroy."""

from __future__ import annotations

import os
import shutil

from fairseq.file_io import PathManager


class AtomicFiles(PathManager):
    """The engine's file functions, with every checkpoint appearing at once or not at all.

    fairseq writes one file and copies it over the others in place, so that a kill during the copy leaves no
    good ``checkpoint_last.pt``. Here a copy is a second name of the same content (a hard link; a real copy
    where the file system has none), put in place by a rename.
    """

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        part = f"{dst_path}.{os.getpid()}.part"
        if os.path.lexists(part):
            os.remove(part)
        try:
            os.link(src_path, part)
        except OSError:
            shutil.copyfile(src_path, part)
        os.replace(part, dst_path)
        return True

    @staticmethod
    def rename(src: str, dst: str) -> None:
        with open(src, "rb") as file:
            os.fsync(file.fileno())  # the name must not appear before the content
        os.replace(src, dst)
