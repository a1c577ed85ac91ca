"""Names of files as tables and people spell them, and as the file system has them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_ADDRESS = re.compile(r"(^|/)[a-z][a-z0-9+.-]*:/+[^/]", re.IGNORECASE)
_DRIVE = re.compile(r"(^|/)[A-Za-z]:\\")
_ARCHIVES = "__MACOSX"  # what macOS puts beside the files of an archive


def is_hidden(*parts: str) -> bool:
    """Whether a path has a part that programs keep for themselves: ``._photo.jpg``, ``.ipynb_checkpoints``,
    ``__MACOSX``."""
    return any((part.startswith(".") and part not in (".", "..")) or part == _ARCHIVES for part in parts)


def files_below(folder: str | os.PathLike[str]) -> tuple[list[str], int]:
    """Return the files below a folder as sorted relative paths, and how many hidden ones were left out.

    Links to folders are followed, each folder once.
    """
    root = os.fspath(folder)
    found: list[str] = []
    hidden = 0
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in [name for name in folders if is_hidden(name)]:
            folders.remove(name)
            hidden += sum(len(below) for _, _, below in os.walk(os.path.join(place, name)))
        folders.sort()
        own = [name for name in files if not is_hidden(name)]
        hidden += len(files) - len(own)
        found += [os.path.relpath(os.path.join(place, name), root) for name in own]
    return sorted(found), hidden


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path from the root. ``..`` stays: behind a link it means another folder than its text says."""
    return os.path.join(os.getcwd(), os.fspath(path))


def existing(path: str) -> str | None:
    """Return the path of the file that a name stands for, None where there is none.

    That is the name itself, or its letters in the other Unicode form (macOS takes accents apart, NFD; others
    do not, NFC), or with ``/`` for the backslashes of Windows.
    """
    if os.path.exists(path):
        return path
    for spelling in spellings(path):
        if os.path.exists(spelling):
            return spelling
    for spelling in {path, path.replace("\\", "/")}:
        if not spelling.isascii() and (found := _by_parts(spelling)) is not None:
            return found
    return None


def spellings(name: str) -> Iterator[str]:
    """Yield a name, and the other ways to spell it that mean the same file."""
    for spelling in (name, name.replace("\\", "/")) if "\\" in name else (name,):
        yield spelling
        if not spelling.isascii():
            yield unicodedata.normalize("NFC", spelling)
            yield unicodedata.normalize("NFD", spelling)


def _by_parts(path: str) -> str | None:
    """Find a path whose folders are spelled in different forms."""
    here = "/" if path.startswith("/") else ""
    for part in path.split("/"):
        if part:
            spelled = (os.path.join(here, form) for form in spellings(part))
            place = next((place for place in spelled if os.path.exists(place)), None)
            if place is None:
                return None
            here = place
    return here or None


def absence(path: str) -> str:
    """Say why there is no file of this name: "no such file", and what is there instead where that helps."""
    if _ADDRESS.search(path):
        return "is an address of the web, and nothing is downloaded: fetch the file and give its path"
    if _DRIVE.search(path):
        return "no such file; it is a path of another system: give one below the media folder"
    folder, name = os.path.split(path)
    if folder and not os.path.isdir(folder):
        while folder and not os.path.isdir(os.path.dirname(folder) or "."):
            folder = os.path.dirname(folder)
        return f"no such file; its folder '{folder}' does not exist"
    names = _names(folder or ".")
    same = [other for other in names if other.casefold() == name.casefold()]
    if same:
        return f"no such file; there is '{same[0]}': upper and lower case count"
    return "no such file"


def _names(folder: str) -> tuple[str, ...]:
    try:
        return _listed(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=16)
def _listed(folder: str, changed: int) -> tuple[str, ...]:
    return tuple(os.listdir(folder))
