"""Parquet and Arrow files as tables."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from unival.errors import DataError, RowNumber
from unival.media.columnar import ColumnarFile, open_columnar
from unival.tables.base import Table
from unival.tables.row import Row

LARGE = 32 << 20  # bytes of media of a row group
log = logging.getLogger(__name__)


class ColumnarTable(Table):
    """A .parquet, .arrow or .feather file. Values keep their type: str, numbers, lists, None.

    A column of contents (bytes, or Hugging Face's ``{"bytes", "path"}``) gives references
    ``file.parquet/row/column``, which a MediaLoader reads; class labels are given by name.
    """

    def __init__(self, path: str, *, media_root: str | None = None) -> None:
        self.path = os.fspath(path)
        self.media_root = media_root
        file, self._identity = open_columnar(self.path)
        self.columns = file.columns
        self._size = len(file)
        if not self._size:
            raise DataError("the file holds no rows", path=self.path)
        if file.media_bytes > LARGE:
            log.warning(
                f"{self.path}: each medium is read with the {file.media_bytes >> 20} MB of its row group, which is "
                "slow in shuffled order; write row groups of about 10 MB, or an Arrow file (datasets.save_to_disk)"
            )

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:
        number = self._position(index)
        return Row(self._file().row(number), self.path, RowNumber(number + 1), self.media_root)

    def matching(self, accept: dict[str, Callable[[Any], bool]]) -> npt.NDArray[np.int64]:
        columns = list(accept)
        for column in columns:
            if column not in self.columns:
                self[0][column]  # raises the error that names the place
        rows = self._file().column_rows(columns)
        found = (n for n, values in rows if all(test(values[c]) for c, test in accept.items()))
        return np.fromiter(found, np.int64)

    def _file(self) -> ColumnarFile:
        file, identity = open_columnar(self.path)
        if identity != self._identity:
            raise DataError("the file changed while it was open; start the run again", path=self.path)
        return file
