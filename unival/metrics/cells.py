"""Rows of TSV and CSV files of predictions and references, with the cells that tables would see (unival.tables)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from unival.errors import DataError

_LARGEST = 256 << 20  # bytes of a cell: the library's own limit is less than a picture in base64
_BREAK = re.compile("\r\n|\n|\r")  # str.splitlines also breaks at form feeds and Unicode's separators
_BORDERS = {";": "semicolons", "\t": "tabs", ",": "commas"}


def rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, cells by column name) of a file with a header, ``.csv`` or ``.tsv``.

    In TSV every tab is a border and quotes are plain text; CSV follows RFC 4180. Empty lines are passed over.
    Raises DataError (file, line) for a row with more or fewer cells than the header, and for broken quotes.
    """
    tabs = path.suffix.lower() == ".tsv"
    records = _tab_separated(text) if tabs else _comma_separated(path, text)
    names: list[str] | None = None
    for line, cells in records:
        if names is None:
            names = _header(path, line, cells, "\t" if tabs else ",")
            continue
        extra = cells[len(names) :]
        if len(cells) < len(names) or any(extra):
            cause = "a cell is missing, or a line break inside a text cut the row in two"
            if extra:
                remedy = "replace it by a space" if tabs else "put the whole text in quotes"
                cause = f"a {'tab' if tabs else 'comma'} inside a text is taken for a border; {remedy}"
            raise DataError(
                f"expected {len(names)} cells ({', '.join(names)}), found {len(cells)}: {cause}",
                path=str(path),
                line=line,
            )
        yield line, dict(zip(names, cells, strict=False))


def _header(path: Path, line: int, cells: list[str], border: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:  # commas at the end of every line, as spreadsheets leave them
        names.pop()
    if names and names[0].lower() in ("sep=", "sep=;"):
        raise DataError(
            "the line 'sep=' tells Excel which separator the file has, and is no header: remove it",
            path=str(path),
            line=line,
        )
    if len(names) == 1:
        other = next((mark for mark in _BORDERS if mark != border and mark in names[0]), None)
        if other:
            raise DataError(
                f"the header '{names[0][:60]}' is separated by {_BORDERS[other]}: save the file with "
                f"{_BORDERS[border]}, or give it the ending of what it is",
                path=str(path),
                line=line,
            )
    for name in names:
        if names.count(name) > 1:
            raise DataError("two columns have this name; rename one", path=str(path), line=line, column=name)
    return names


def _tab_separated(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_BREAK.split(text), start=1):
        if line:
            yield number, line.split("\t")


def _comma_separated(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"not valid CSV: {error}; inside a quoted cell a quote is written twice",
            path=str(path),
            line=line,
        ) from None
