"""One row of a table: values by column name, and where it came from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from unival.errors import DataError, nearest, numbered


class Row(Mapping[str, Any]):
    """Values of one row by column name.

    TSV and CSV values are str; other values are whatever the file holds (a list of captions stays a list: what
    it means is the task's business). ``path`` and ``line`` (1-based, header included; a ``RowNumber`` where the
    file has no lines) name the place in the file, ``media_root`` the folder or tar that the row's media
    references start from.
    """

    __slots__ = ("_values", "line", "media_root", "path")

    def __init__(
        self, values: Mapping[str, Any], path: str, line: int, media_root: str | None = None
    ) -> None:
        self._values, self.path, self.line, self.media_root = values, path, line, media_root

    @property
    def place(self) -> str:
        """File and line, for a message."""
        return f"{self.path}, {numbered(self.line)}"

    def __getitem__(self, column: str) -> Any:
        """Return the value; DataError names file, line, column and the columns there are."""
        try:
            return self._values[column]
        except KeyError:
            raise DataError(
                f"there is no such column; the row has {listing(self._values)}."
                f"{nearest(column, self._values)}",
                path=self.path,
                line=self.line,
                column=column,
            ) from None

    def get(self, column: str, default: Any = None) -> Any:
        return self._values.get(column, default)

    def __contains__(self, column: object) -> bool:
        return column in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Row({dict(self._values)!r}, {self.path!r}, {numbered(self.line)})"


def listing(names: Collection[str], limit: int = 40) -> str:
    """Return "'a', 'b', ..." for an error message; base64 images in a headerless file are cut short."""
    shown = [repr(n if len(n) <= 40 else n[:37] + "...") for n in list(names)[:limit]]
    return ", ".join(shown) + (", ..." if len(names) > limit else "")
