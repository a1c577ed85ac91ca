"""Tables whose rows are cells in columns: what TSV and CSV share, above all the header decision."""

from __future__ import annotations

import operator
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from unival.errors import ConfigError, DataError, nearest
from unival.tables.base import FileTable
from unival.tables.layouts import Layout
from unival.tables.row import listing

# what people call columns; beside two other short words a line of them is no row
_OTHER_NAMES = {
    *("file", "filename", "file_name", "filepath", "path", "img", "url", "bbox"),
    *("image_path", "image_file", "image_id", "video_path", "audio_path"),
    *("text", "sentence", "description", "title", "captions", "label", "phrase", "expression"),
    *("query", "prompt", "answers"),
}
_NAME = re.compile(r"[^\W\d][\w -]{0,30}([;|,\t][ \w-]{1,30})*")  # the separators: of a line that is one cell


class DelimitedTable(FileTable):
    """Cells in columns; every row must have as many as the first line.

    Header decision: ``header`` True or False decides. Otherwise a file read without a layout has a header,
    and one read with a layout has a header exactly if its first line holds all ``required`` names (of the
    task's fields, else the layout's names); where nothing is required, if it holds two ``optional`` names.
    A first line with two or more of the names, but not all required ones, is unclear and an error.

    With a header columns are found by name and selected_cols is not needed; only with ``header`` True and
    a first line without the required names do given selected_cols count. Without a header and without a
    layout the columns are called "0", "1", ...

    Raises DataError: no rows, a wrong number of cells, missing columns, a column name given twice.
    """

    separator = ""

    def __init__(
        self,
        path: str,
        *,
        header: bool | None = None,
        layout: Layout | None = None,
        selected_cols: str | Sequence[int] | None = None,
        required: Sequence[str] = (),
        optional: Sequence[str] = (),
        media_root: str | None = None,
    ) -> None:
        super().__init__(path, media_root)
        if selected_cols is not None and layout is None:
            raise ConfigError(
                f"{path}: selected_cols '{selected_cols}' needs a layout that names the columns it picks"
            )
        first = self._cells(self._raw(0), 0)
        self._width = len(first)
        if first[0].lower() in ("sep=", "sep=;", "sep=,") and not any(first[1:]):
            raise DataError(
                "the line 'sep=' tells Excel which separator the file has, and is no header: remove it",
                path=self.path,
                line=1,
            )
        # people write names with other capitals; the task's spelling is used where it is not taken
        wanted = (*required, *optional, *(layout.orders[0] if layout is not None and not required else ()))
        first = _spelled(first, wanted)
        if header is None:
            by_name = header = layout is None or self._is_header(first, required, optional, layout)
        else:  # an explicit header is read by position only where the positions are explicit too
            by_name = header and (selected_cols is None or set(required) <= set(first))
        self._first = int(header)
        if header and len(self) == 0:
            raise DataError(
                f"the file holds the header {listing(first)} and no rows; "
                "add rows, or set header: false if this is a row",
                path=self.path,
                line=1,
            )
        names = self._named(first) if header else {}
        if layout is not None and not by_name:
            names.update(self._positioned(layout, selected_cols, first))
        elif not header:
            names = {str(i): i for i in range(self._width)}
        self.columns = tuple(names)
        positions = tuple(names.values())
        self._pick = operator.itemgetter(*positions) if positions != tuple(range(self._width)) else None

    @abstractmethod
    def _cells(self, raw: bytes, record: int) -> list[str]:
        """Split one record."""

    def _is_header(
        self, first: list[str], required: Sequence[str], optional: Sequence[str], layout: Layout | None
    ) -> bool:
        """Judge the first line of a file that may be a headerless reference file."""
        wanted = list(required) or ([] if optional else list(layout.orders[0] if layout else ()))
        missing = [name for name in wanted if name not in first]
        held = len({*wanted, *optional} & set(first))
        if wanted and not missing:
            return True
        if not wanted:
            return held >= 2
        if held < 2:
            self._check_names(first, missing, held, layout)
            return False
        raise DataError(
            f"the first line looks like a header ({listing(first)}) but lacks {listing(missing)}; rename the "
            "column, map it with 'fields:', or set 'header: false' if this line is a row",
            path=self.path,
            line=1,
        )

    def _check_names(self, first: list[str], missing: list[str], held: int, layout: Layout | None) -> None:
        """Raise DataError for a first line that is a header under other names, and no row of a layout."""
        narrow = layout is not None and len(first) < len(layout.columns)
        if _are_names(first) and (held or narrow or not _OTHER_NAMES.isdisjoint(map(str.casefold, first))):
            raise DataError(
                f"the header lacks {listing(missing)}; it has {listing(first)}. Rename the column, map it "
                "('fields:' of a table description, --columns of 'unival data convert'), or set 'header: false' if "
                f"this line is a row{separator_hint(first, self.path)}",
                path=self.path,
                line=1,
            )

    def _named(self, first: list[str]) -> dict[str, int]:
        names: dict[str, int] = {}
        for position, name in enumerate(cell.strip() for cell in first):
            if name in names:
                raise DataError(
                    f"columns {names[name] + 1} and {position + 1} have the same name; rename one "
                    "(or set 'header: false' if this line is a row)",
                    path=self.path,
                    line=1,
                    column=name,
                )
            names[name] = position
        return names

    def _positioned(
        self, layout: Layout, selected_cols: str | Sequence[int] | None, first: list[str]
    ) -> dict[str, int]:
        positions = layout.positions(selected_cols)
        if max(positions.values()) >= self._width:
            columns = ", ".join(layout.columns)
            raise DataError(
                f"selected_cols {','.join(map(str, positions.values()))} needs {max(positions.values()) + 1} "
                f"columns (this layout: {columns}), the first line has {self._width}: {listing(first)}",
                path=self.path,
                line=1,
            )
        if layout.further and len(layout.columns) + 1 == self._width:
            positions.setdefault(layout.further, len(layout.columns))
        return positions

    def _parse(self, raw: bytes, record: int) -> list[str]:
        cells = self._cells(raw, record)
        if len(cells) == self._width:
            return cells
        if not raw:
            cause = "the line is empty; remove it"
        elif len(cells) > self._width:
            cause = f"a {self.separator} inside a text is taken for a column border; {self.border_remedy}"
        else:
            cause = "a cell is missing, or a line break inside a text cut the row in two"
        raise DataError(
            f"expected {self._width} columns (as in line 1), found {len(cells)}: {cause}",
            path=self.path,
            line=self._line(record),
        )

    border_remedy = ""

    def _values(self, cells: Any) -> dict[str, Any]:
        if self._pick is None:
            return dict(zip(self.columns, cells, strict=True))
        picked = self._pick(cells)
        return dict(zip(self.columns, picked if len(self.columns) > 1 else (picked,), strict=True))


def _spelled(first: list[str], wanted: Sequence[str]) -> list[str]:
    """Return a first line with blanks around names taken off and names in other capitals as ``wanted`` has them."""
    cells = [cell.strip() for cell in first]
    plain = [cell.casefold() for cell in cells]
    for name in wanted:
        if name not in cells and plain.count(name.casefold()) == 1:
            cells[plain.index(name.casefold())] = name
    return cells


def _are_names(first: Sequence[str]) -> bool:
    """Whether a first line can only be a header: short distinct words, where a row has numbers, paths or base64."""
    short = all(_NAME.fullmatch(cell) for cell in first)
    return short and len(set(first)) == len(first) and not any(cell.isdigit() for cell in first)


def require(table: Any, names: Sequence[str]) -> None:
    """Raise DataError, listing the columns there are, unless ``table`` has all ``names``."""
    for name in names:
        if name not in table.columns:
            raise DataError(
                f"there is no such column; the table has {listing(table.columns)}."
                f"{nearest(name, table.columns)} Another name can be mapped in a table description, "
                f"'fields: {{{name}: that column}}'",
                path=table.path,
                line=1,
                column=name,
            )


def separator_hint(names: Sequence[str], path: str) -> str:
    """Return "; its columns are separated by semicolons, ..." where a header that is one cell looks like it."""
    tabs = path.lower().endswith(".tsv")
    own, name = ("\t", "tabs") if tabs else (",", "commas")
    for mark, word in ((";", "semicolons"), ("\t", "tabs"), (",", "commas"), ("|", "bars")):
        if len(names) == 1 and mark in names[0] and mark != own:
            return (
                f". Its cells are separated by {word}: save it with {name}, or give the file the right ending"
            )
    return ""
