"""Exceptions that users meet. Each message names the value, the limit and the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UnivalError(Exception):
    """Base class: an error with a message meant for the user, not a traceback."""


class ConfigError(UnivalError):
    """An option, recipe or combination of settings that cannot work."""


class OverdueError(UnivalError):
    """Work that was stopped since its time was over."""


class CheckpointError(UnivalError):
    """A checkpoint that is absent, damaged, or does not fit the model or the vocabulary."""


class RowNumber(int):
    """The place (1-based) of a row in a file that is no text: messages say "row 3", not "line 3"."""


def numbered(line: int) -> str:
    """Return "line 3", or "row 3" for a :class:`RowNumber`."""
    return f"{'row' if isinstance(line, RowNumber) else 'line'} {int(line)}"


class OutputError(UnivalError):
    """A file or folder that cannot be written; the message names it and says why."""


class DataError(UnivalError):
    """A row that cannot be used.

    The message names file, line (1-based, header included) or row, column and what was expected.
    """

    def __init__(
        self,
        expected: str,
        *,
        path: str | None = None,
        line: int | None = None,
        column: str | None = None,
    ) -> None:
        place = [str(path)] if path else []
        if line is not None:
            place.append(numbered(line))
        if column is not None:
            place.append(f"column '{column}'")
        super().__init__(f"{', '.join(place)}: {expected}" if place else expected)
        self.expected, self.path, self.line, self.column = expected, path, line, column


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the choice closest to ``name``, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def said(error: BaseException, limit: int = 200) -> str:
    """Return what a library's exception says, as one line of at most ``limit`` characters."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(text or type(error).__name__, limit)


def shortened(text: str, limit: int = 200) -> str:
    """Return ``text`` on one line, its middle left out where it is longer than ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit // 2]} ... {line[-limit // 2 + 5 :]}"


def explained(error: BaseException) -> str | None:
    """Return the one line for an exception that is no fault of the program; None for a fault of the program.

    Checks near the cause say more; this is for what can happen anywhere (a disk that fills up, memory that runs
    out, a file that goes away).
    """
    if isinstance(error, UnivalError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{shortened(str(error.filename))}: " if error.filename else ""
        if not place and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            place = "a file cannot be written: "
        return place + said(error)
    if isinstance(error, UnicodeError):
        return f"a text cannot be read or written: {said(error)}"
    full = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    if full or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: {said(error)}; give a smaller --batch-size, or smaller inputs"
    if isinstance(error, ValueError) and str(error) == "embedded null byte":
        return "a name holds a NUL character"
    if isinstance(error, RecursionError):
        return "an input is nested too deeply"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] != "unival":
        return f"the package '{error.name}' is missing; 'unival doctor' says how to get what is missing"
    return None
