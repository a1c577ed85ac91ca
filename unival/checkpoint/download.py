"""Fetching a released file: resumed where it stopped, checked by length and SHA-256."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unival.core.paths import expand
from unival.core.provenance import sha256
from unival.errors import CheckpointError
from unival.evaluate.reproduce import Entry

BLOCK = 1 << 20  # bytes read at once
TIMEOUT = 60.0  # seconds without a byte
Progress = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class Download:
    """What was fetched: ``checked`` is False when no SHA-256 was known to compare with."""

    path: Path
    sha256: str
    checked: bool
    resumed_at: int


def located(entry: Entry) -> Path:
    """Return the path of a released checkpoint on this machine; CheckpointError saying how to get it."""
    path = Path(expand(entry.checkpoint))
    if path.exists():
        return path
    how = f"fetch it with 'unival download {entry.name}'"
    if entry.url is None:
        how = "this project does not know a download address for it; put the file there"
    raise CheckpointError(f"checkpoint '{entry.name}' is not at {path}: {how}, or set UNIVAL_WEIGHTS")


def download(url: str, path: Path, expected: str | None = None, progress: Progress | None = None) -> Download:
    """Fetch ``url`` to ``path``. What is there of an earlier attempt (``path.part``) is continued.

    expected: the file's SHA-256, None when it is not known. progress: called with (bytes so far, bytes in
    all or None). ``path`` appears only when complete. Raises CheckpointError for a server that does not
    answer, a file that ends early, or one that is not the expected one (which is removed).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    start = part.stat().st_size if part.exists() else 0
    try:
        resumed_at = _fetch(url, part, start, progress)
    except (OSError, http.client.HTTPException) as error:
        have = part.stat().st_size if part.exists() else 0
        raise CheckpointError(
            f"{url}: {_reason(error)} after {have} bytes; they are kept in {part}, the same command goes on there"
        ) from error
    found = sha256([part])
    if expected is not None and found != expected:
        part.unlink()
        raise CheckpointError(
            f"{url} gave a file with SHA-256 {found}, expected {expected}: it was removed. Fetch it again; if that "
            "gives the same, the address holds another file."
        )
    os.replace(part, path)
    return Download(path, found, expected is not None, resumed_at)


def _fetch(url: str, part: Path, start: int, progress: Progress | None) -> int:
    """Append to ``part`` what is missing; returns the byte at which the transfer began."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range") or "")
        if error.code == 416 and total and int(total[1]) == start:
            return start  # nothing is missing
        if error.code == 416:
            part.unlink()  # longer than the file: of another one
            return _fetch(url, part, 0, progress)
        raise
    with response:
        if response.status != 206:
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total_size = start + int(length) if length is not None else None
        with open(part, "r+b" if start else "wb") as file:
            file.seek(start)
            done = start
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total_size)
            file.truncate()
    if total_size is not None and done != total_size:
        raise http.client.IncompleteRead(b"", total_size - done)
    return start


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} ({error.reason})"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    return str(getattr(error, "reason", None) or error)
