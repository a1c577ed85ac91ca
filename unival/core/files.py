"""Files that are complete or not there: written beside their place and moved into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; it takes the file's name when the block ends well.

    After an error or a kill the old file is as it was; an error also removes the temporary one. Several
    processes may write the same file: the last one wins, no reader sees a mixture.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file so that a kill leaves the old content or the new one."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
