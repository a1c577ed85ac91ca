"""Files beside the checkpoints that get a line of JSON now and then: the log of a training, updates that jumped."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unival.core.files import make_folder, replacing
from unival.errors import OutputError, said

logger = logging.getLogger(__name__)

_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


class Journal:
    """Lines at the end of a file.

    A full disk ends no run here: what cannot be written waits for the next line, and the checkpoints, which need far
    more room, decide whether the run goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []
        _journals.add(self)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record, and those before it that are not written yet."""
        self._waiting.append(json.dumps(record, ensure_ascii=False) + "\n")
        self.flush()

    def flush(self) -> None:
        """Write what waits, if there is room by now."""
        if not self._waiting:
            return
        try:
            make_folder(self.path.parent)
            _append(self.path, "".join(self._waiting).encode())
        except (OSError, OutputError) as error:
            if len(self._waiting) == 1:
                logger.warning(f"{self.path} waits for room, the training goes on: {said(error)}")
        else:
            self._waiting.clear()

    def trim(self, done: int) -> None:
        """Drop records of updates after ``done``: they will be done (again). All of them for a run that begins."""
        self._waiting.clear()
        if not self.path.is_file():
            return
        kept = [
            line + "\n" for line in self.path.read_text(encoding="utf-8").splitlines() if _within(line, done)
        ]
        with replacing(self.path) as part:
            part.write_text("".join(kept) if done else "", encoding="utf-8")


def finish() -> None:
    """Write what waits in this process; the run is over."""
    for journal in _journals:
        journal.flush()


def _append(path: Path, content: bytes) -> None:
    """All or nothing."""
    with open(path, "ab", buffering=0) as file:
        begin = file.tell()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), begin)
            raise


def _within(line: str, done: int) -> bool:
    try:
        return bool(json.loads(line)["update"] <= done)
    except (ValueError, KeyError):  # the last line of a killed run
        return False
