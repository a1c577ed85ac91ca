"""Fetching published files over http(s): resumed where it stopped, checked by length and hash, then put in place."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from unival.checkpoint.archives import unpack
from unival.checkpoint.catalogue import PublishedFile
from unival.core.files import write_text
from unival.errors import CheckpointError

BLOCK = 1 << 20  # bytes read at once
TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5  # at one address, as long as each brings something
Progress = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class Checks:
    """What a file must be: its length, its SHA-256 or the first digits of it, its MD5; None is not known."""

    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Download:
    """What was fetched: ``checked`` is False when no hash was known to compare with, or the hash's digits."""

    path: Path
    url: str
    sha256: str
    checked: bool
    resumed_at: int
    unpacked: tuple[Path, ...] = ()


class TransferError(CheckpointError):
    """A transfer that failed. ``kept``: bytes that the next attempt begins with; ``again``: worth another."""

    def __init__(self, message: str, kept: int = 0, again: bool = False) -> None:
        super().__init__(message)
        self.kept, self.again = kept, again


def fetch(
    file: PublishedFile, progress: Progress | None = None, timeout: float = TIMEOUT, place: Path | None = None
) -> Download:
    """Fetch a file of the catalogue to its place (or another), from the first address that gives the right one.

    An archive is unpacked and removed. Raises CheckpointError that says of every address what was wrong.
    """
    path, checks = place or file.path, Checks(file.bytes, file.sha256, file.md5)
    said = []
    for url in file.urls:
        for attempt in range(ATTEMPTS):
            before = _size(_part(path))
            try:
                done = download(url, path, checks, progress, timeout)
            except TransferError as error:
                worth_it = error.again and (error.kept > before or (before > 0 and error.kept == 0))
                if worth_it and attempt + 1 < ATTEMPTS:
                    continue
                said.append(str(error))
                break
            if file.folder is None:
                return done
            members = unpack(path, file.folder, file.gives)
            path.unlink()
            if file.marker is not None:
                write_text(file.marker, "".join(f"{member}\n" for member in members))
            return Download(path, url, done.sha256, done.checked, done.resumed_at, tuple(members))
    if file.pages:
        said.append(f"fetch it by hand from {' or '.join(file.pages)} and put it at {path}")
    if not said:
        said.append("no address of it is known")
    raise CheckpointError(f"{path} could not be fetched:\n" + "\n".join(f"  {line}" for line in said))


def download(
    url: str,
    path: Path,
    checks: Checks | str | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
) -> Download:
    """Fetch ``url`` to ``path``, once. What is there of an earlier attempt (``path.part``) is continued.

    checks: what the file must be, or its SHA-256 alone. progress: called with (bytes so far, bytes in all or
    None). timeout: seconds without a byte. ``path`` appears only when complete and right. Raises TransferError
    for an address that is not http(s), a server that does not answer or offers another file, a transfer that
    ends early, and a file that is not the expected one, which is removed.
    """
    if not isinstance(checks, Checks):
        checks = Checks(sha256=checks)
    _check_scheme(url)
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_other(part, url, checks)
        resumed_at = _transfer(url, part, checks, progress, timeout)
    except (OSError, http.client.HTTPException) as error:
        have = _size(part)
        kept = f"; they are kept in {part}, the same command goes on there" if have else ""
        refused = isinstance(error, urllib.error.HTTPError)
        raise TransferError(
            f"{url}: {_reason(error, timeout)} after {have} bytes{kept}", have, not refused
        ) from error
    found = _hashes(part, checks)
    wrong = _difference(part, checks, found)
    if wrong:
        _forget(part)
        again = resumed_at > 0  # the earlier bytes may have been of another file
        raise TransferError(f"{url} gave {wrong}: it was removed. Another file lies there", 0, again)
    os.replace(part, path)
    _note(part).unlink(missing_ok=True)
    return Download(
        path, url, found["sha256"], checks.sha256 is not None or checks.md5 is not None, resumed_at
    )


def check(path: Path, file: PublishedFile) -> str | None:
    """Say how a file that is there differs from the published one; None when it does not, or cannot be told."""
    checks = Checks(file.bytes, file.sha256, file.md5)
    if checks.bytes is not None and path.stat().st_size != checks.bytes:
        return f"a file of {path.stat().st_size} bytes, published {checks.bytes}"
    return _difference(path, checks, _hashes(path, checks)) if checks.sha256 or checks.md5 else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, and none from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise urllib.error.URLError(f"the server redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise TransferError(
            f"'{url}' is not an http(s) address; copy a file that you have to its place yourself"
        )


def _transfer(url: str, part: Path, checks: Checks, progress: Progress | None, timeout: float) -> int:
    """Append to ``part`` what is missing; returns the byte at which the transfer began."""
    start = _size(part)
    headers = {"User-Agent": "unival"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator := _read_note(part)[1]:
            headers["If-Range"] = validator
    opener = urllib.request.build_opener(_Redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range") or "")
        if not start:
            raise
        if total and int(total[1]) == start:
            return start  # nothing is missing
        _forget(part)  # longer than the file: of another one
        return _transfer(url, part, checks, progress, timeout)
    with response:
        total_size = _offered(response, start)
        if response.status == 206 and not _continues(response, start):
            if not start:
                raise urllib.error.URLError("the server sends a part that was not asked for")
            _forget(part)
            return _transfer(url, part, checks, progress, timeout)
        if response.status != 206:
            start = 0  # the server sends the whole file
        _check_offer(url, response, total_size, checks, part, start)
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        _note(part).write_text(
            f"{url}\n{'' if validator.startswith('W/') else validator}\n", encoding="utf-8"
        )
        with open(part, "r+b" if start else "ab", buffering=0) as file:  # a kill leaves what had arrived
            _claim(file, part)
            file.seek(start)
            file.truncate()
            done = start
            while block := response.read1(BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total_size)
                if checks.bytes is not None and done > checks.bytes:
                    break
    if total_size is not None and done < total_size:
        raise http.client.IncompleteRead(b"", total_size - done)
    return start


def _claim(file: FileIO, part: Path) -> None:
    """Refuse when another process writes the same file."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise TransferError(f"{part} is being written by another process; wait for it") from None


def _offered(response: Any, start: int) -> int | None:
    """Length of the whole file as the server says it."""
    length = response.headers.get("Content-Length")
    if length is None or not length.isdigit():
        return None
    return int(length) + (start if response.status == 206 else 0)


def _continues(response: Any, start: int) -> bool:
    """Does a partial answer begin where it was asked to?"""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return found is None or int(found[1]) == start


def _check_offer(url: str, response: Any, size: int | None, checks: Checks, part: Path, start: int) -> None:
    """Refuse before anything is written: another file, a web page, more than fits on the disk."""
    if size is not None and checks.bytes is not None and size != checks.bytes:
        raise TransferError(f"{url}: the server offers {size} bytes, the published file has {checks.bytes}")
    if response.headers.get_content_type() == "text/html" and response.headers.get("Content-Type"):
        raise TransferError(f"{url}: the server answers with a web page, not with the file")
    expected = checks.bytes or size
    free = shutil.disk_usage(part.parent).free
    if expected is not None and expected - start > free:
        raise TransferError(
            f"{url}: {expected - start} bytes do not fit on the disk of {part.parent} ({free} free)"
        )


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _note(part: Path) -> Path:
    """Where the beginning in ``part`` is from: address and version."""
    return part.with_name(f"{part.name}.from")


def _read_note(part: Path) -> tuple[str, str]:
    try:
        lines = _note(part).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "", ""
    return (lines[0], lines[1]) if len(lines) > 1 else ("", "")


def _forget_other(part: Path, url: str, checks: Checks) -> None:
    """Drop a beginning from another address where no whole hash could tell that it is not this file's."""
    before = _read_note(part)[0]
    if before and before != url and len(checks.sha256 or "") < 64:
        _forget(part)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _hashes(path: Path, checks: Checks) -> dict[str, str]:
    kinds = {"sha256": hashlib.sha256()} | ({"md5": hashlib.md5(usedforsecurity=False)} if checks.md5 else {})
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            for digest in kinds.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in kinds.items()}


def _difference(path: Path, checks: Checks, found: dict[str, str]) -> str | None:
    size = path.stat().st_size
    if checks.bytes is not None and size != checks.bytes:
        return f"a file of {size} bytes, expected {checks.bytes}"
    for name, expected in (("sha256", checks.sha256), ("md5", checks.md5)):
        if expected is not None and not found[name].startswith(expected):
            label = {"sha256": "SHA-256", "md5": "MD5"}[name]
            return (
                f"a file with {label} {found[name]}, expected {expected}{'...' if len(expected) < 32 else ''}"
            )
    return None


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} ({error.reason})"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return f"the server sent nothing for {timeout:g} seconds"
    return str(reason)
