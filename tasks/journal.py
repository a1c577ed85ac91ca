"""Files beside the checkpoints that get a line of JSON now and then: the log of a training, updates that jumped."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unival.core.files import make_folder, replacing, writing
from unival.errors import OutputError, said

logger = logging.getLogger(__name__)

_waiting: dict[Path, list[str]] = {}  # lines that this process could not write yet


class Journal:
    """Lines at the end of a file.

    A full disk ends no run here: what cannot be written waits for the next line, and the checkpoints, which need far
    more room, decide whether the run goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record, and those before it that are not written yet."""
        lines = _waiting.setdefault(self.path, [])
        lines.append(json.dumps(record) + "\n")
        error = _write(self.path)
        if error is not None and len(lines) == 1:
            logger.warning(f"{self.path} waits for room, the training goes on: {said(error)}")

    def trim(self, done: int) -> None:
        """Drop records of updates after ``done``: they will be done (again). All of them for a run that begins.

        Raises OutputError where that needs room and there is none.
        """
        _waiting.pop(self.path, None)
        if not self.path.is_file():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [line.strip() + b"\n" for line in lines if done and _within(line, done)]
        if kept == lines:
            return
        if kept == lines[: len(kept)]:
            with writing(self.path):
                os.truncate(self.path, sum(map(len, kept)))
            return
        with replacing(self.path) as part:
            part.write_bytes(b"".join(kept))


def finish() -> None:
    """Write what waits in this process; the run is over."""
    for path in list(_waiting):
        error, lines = _write(path), _waiting.pop(path, [])
        if error is not None:
            logger.warning(f"{path} lacks its last {len(lines)} lines: {said(error)}")


def _write(path: Path) -> Exception | None:
    """Append the lines that wait, all or none; return what is in the way."""
    if not _waiting.get(path):
        return None
    begin = None
    try:
        make_folder(path.parent)
        begin = path.stat().st_size if path.is_file() else 0
        with open(path, "ab", buffering=0) as file:
            content = "".join(_waiting[path]).encode()
            while content:
                content = content[file.write(content) :]
    except (OSError, OutputError) as error:
        with contextlib.suppress(OSError):
            if begin is not None and path.is_file():
                os.truncate(path, begin)
        return error
    _waiting.pop(path)
    return None


def _within(line: bytes, done: int) -> bool:
    try:
        return bool(json.loads(line)["update"] <= done)
    except (ValueError, KeyError, TypeError):  # the last line of a killed run
        return False
