"""Tab-separated tables: one row per line, no quoting (reference behaviour, inventory 6.1)."""

from __future__ import annotations

from unival.tables.delimited import DelimitedTable


class TsvTable(DelimitedTable):
    """A .tsv file. Every tab is a column border and every line break ends a row; quotes are plain text."""

    separator = "tab"
    border_remedy = "replace it by a space"

    def _cells(self, raw: bytes, record: int) -> list[str]:
        return self._text(raw, record).split("\t")
