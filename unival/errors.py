"""Exceptions that users meet. Each message names the value, the limit and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnivalError(Exception):
    """Base class: an error with a message meant for the user, not a traceback."""


class ConfigError(UnivalError):
    """An option, recipe or combination of settings that cannot work."""


class CheckpointError(UnivalError):
    """A checkpoint that is absent, damaged, or does not fit the model or the vocabulary."""


class RowNumber(int):
    """The place (1-based) of a row in a file that is no text: messages say "row 3", not "line 3"."""


def numbered(line: int) -> str:
    """Return "line 3", or "row 3" for a :class:`RowNumber`."""
    return f"{'row' if isinstance(line, RowNumber) else 'line'} {int(line)}"


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
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
