"""Comma-separated tables with the quoting of RFC 4180: quoted fields may hold commas and line breaks."""

from __future__ import annotations

import csv

from unival.errors import DataError
from unival.tables import base
from unival.tables.delimited import DelimitedTable


class CsvTable(DelimitedTable):
    """A .csv file."""

    quoted = True
    separator = "comma"
    border_remedy = "put the whole field in quotes"

    def _cells(self, raw: bytes, record: int) -> list[str]:
        text = self._text(raw, record)
        if csv.field_size_limit() < base.MAX_RECORD_BYTES:  # the library's 128 KiB are less than an image
            csv.field_size_limit(base.MAX_RECORD_BYTES)
        try:
            return next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            raise DataError(
                f"not valid CSV: {error}; inside a quoted field a quote is written twice",
                path=self.path,
                line=self._line(record),
            ) from None
