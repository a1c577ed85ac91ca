"""One JSON object per line."""

from __future__ import annotations

import json
from typing import Any

from unival.errors import DataError
from unival.tables.base import FileTable


class JsonlTable(FileTable):
    """A .jsonl file. Values keep their JSON type: str, number, bool, None, list, dict.

    ``columns`` are the keys of the first line; a later line may have more or fewer, and a row answers for
    its own keys.
    """

    def __init__(self, path: str, *, media_root: str | None = None) -> None:
        super().__init__(path, media_root)
        self.columns = tuple(self._parse(self._raw(0), 0))

    def _parse(self, raw: bytes, record: int) -> dict[str, Any]:
        text = self._text(raw, record)
        try:
            value = json.loads(text, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            problem = (
                "the line is empty; remove it"
                if not text.strip()
                else (
                    f"not valid JSON: {error.msg} at character {error.pos + 1}; "
                    "each line must be one complete object"
                )
            )
        except (RecursionError, ValueError) as error:  # too deep; an integer of thousands of digits
            problem = f"not usable JSON: {error}"
        else:
            if isinstance(value, dict):
                return value
            problem = f'expected an object such as {{"id": "1"}}, found {type(value).__name__} {text[:40]!r}'
        raise DataError(problem, path=self.path, line=self._line(record))

    def _values(self, cells: Any) -> dict[str, Any]:
        return cells


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that stands twice the parser would keep the last value alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' stands twice; keep one, or make its value a list")
    return found
