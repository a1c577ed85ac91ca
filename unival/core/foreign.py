"""Files of other people: what they are when they are not what they should be, and errors while reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unival.errors import CheckpointError, said

_SNIFFED = 2048  # bytes looked at
_TEXT = bytes({*range(0x20, 0x7F), *b"\t\n\r\f"})


def mistaken_for(path: str | Path) -> str | None:
    """Say what a file is that should be a checkpoint and is not, with the remedy; None for other files.

    Known: Git LFS pointers, web pages (an address that answered with one), empty files and plain text.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_SNIFFED)
    except OSError:
        return None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the file itself; fetch that with 'git lfs pull' or from its page"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "is a web page and not the file itself; the address may ask for a login or be another one"
    if not head.translate(None, _TEXT):
        return "is text; fetch the file itself"
    return None


@contextmanager
def interpreting(path: str | Path) -> Iterator[None]:
    """Turn what Python raises over values of a wrong kind in a file into CheckpointError that names the file."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(
            f"'{path}' is damaged, or no checkpoint of this kind: a value is not what it should be "
            f"({type(error).__name__}: {said(error, 120)})"
        ) from None


def measured(value: Any, limit: int, path: str | Path) -> None:
    """Refuse plain values that contain themselves, or stand for more than ``limit`` values when written out.

    Shared references make a file of a few lines stand for billions. Raises CheckpointError.
    """
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(item: Any) -> int:
        parts = _parts(item)
        if parts is None:
            return 1
        key = id(item)
        if key in sizes:
            return sizes[key]
        if key in inside:
            raise CheckpointError(f"'{path}' is damaged: a value contains itself")
        inside.add(key)
        total = 1
        for part in parts:
            total += size(part)
            if total > limit:
                raise CheckpointError(f"'{path}' stands for more than {limit:,} values; it is no checkpoint")
        inside.discard(key)
        sizes[key] = total
        return total

    with interpreting(path):
        size(value)


def _parts(item: Any) -> list[Any] | None:
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    if isinstance(item, (list, tuple, set, frozenset)):
        return list(item)
    held = getattr(item, "__dict__", None)
    if not held or type(item).__module__.split(".")[0] == "torch":
        return None
    for name in ("_content", "_val"):  # typed configurations; their parts also refer to what holds them
        if name in held:
            return [held[name]]
    return list(held.values())
