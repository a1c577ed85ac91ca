"""Rows of one id are about one thing: two exports that were joined count their ids from zero twice."""

from __future__ import annotations

import os
from typing import Any

from unival.errors import DataError
from unival.media.columnar import file_of
from unival.media.tar import Member
from unival.specs.base import TaskSpec
from unival.tables.row import Row


class Subjects:
    """What the rows of a table are about, id by id, for tasks that join rows of one id."""

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        self._columns = [f.name for f in spec.fields if f.required and not f.target] if spec.joins_ids else []
        self._seen: dict[str, tuple[tuple[int | None, ...], str]] = {}

    def check(self, row: Row) -> None:
        """Raise DataError where an earlier row has the id of this one and another medium (or box).

        A medium that is a cell of a file is not compared: each row has its own copy there.
        """
        if not self._columns:
            return
        about = tuple(_mark(row.get(column)) for column in self._columns)
        name = self._spec.item_id(row)
        before, place = self._seen.setdefault(name, (about, row.place))
        for column, one, other in zip(self._columns, before, about, strict=True):
            if one != other and one is not None and other is not None:
                raise DataError(
                    f"id '{name}' stands here and in {place} with another {column}: rows of one id are one item with "
                    "several references; make ids unique, or leave the column out",
                    path=row.path,
                    line=row.line,
                    column="id",
                )


def _mark(value: Any) -> int | None:
    """A number that is the same for the same medium, however its path is written; None where that is unknown."""
    if value is None or isinstance(value, Member):
        return None
    if isinstance(value, str) and "." in value and len(value) < 4096:
        return None if file_of(value) else hash(os.path.normpath(value))
    return hash(str(value))
