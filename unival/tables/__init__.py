"""Tables of rows with random access: TSV, CSV, JSONL, Parquet, Arrow, WebDataset; described or as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unival.errors import ConfigError, DataError, nearest
from unival.media.names import absolute
from unival.tables.base import ConcatTable, Table
from unival.tables.columnar import ColumnarTable
from unival.tables.csv import CsvTable
from unival.tables.delimited import require
from unival.tables.describe import DescribedTable, read_description, template_columns
from unival.tables.jsonl import JsonlTable
from unival.tables.layouts import LAYOUTS, Layout, get_layout
from unival.tables.row import Row
from unival.tables.several import files_of
from unival.tables.tsv import TsvTable
from unival.tables.webdataset import WebDatasetTable

__all__ = [
    "LAYOUTS",
    "ColumnarTable",
    "ConcatTable",
    "CsvTable",
    "JsonlTable",
    "Layout",
    "Row",
    "Table",
    "TsvTable",
    "WebDatasetTable",
    "absent_files",
    "get_layout",
    "open_table",
]

_OTHERS: dict[str, Callable[..., Table]] = {
    "jsonl": JsonlTable,
    "parquet": ColumnarTable,
    "arrow": ColumnarTable,
    "webdataset": WebDatasetTable,
}
_FORMATS = ("tsv", "csv", *_OTHERS)
_ENDINGS = {"feather": "arrow", "tar": "webdataset"}


def open_table(
    source: str | os.PathLike[str] | Mapping[str, Any],
    fields: Sequence[Any] | None = None,
    layout: Layout | str | None = None,
    selected_cols: str | Sequence[int] | None = None,
    media_root: str | None = None,
    *,
    header: bool | None = None,
) -> Table:
    """Open a table for random access.

    ``source``: the path of a .tsv, .csv, .jsonl, .parquet, .arrow or (WebDataset) .tar file, of a folder that
    ``datasets.save_to_disk`` wrote, several files (``train-*.parquet``, ``{000..099}.tar``), or a description
    (mapping or YAML file, see ``unival.tables.describe``). ``fields``: the fields a task reads (objects with
    ``name`` and ``required``, or names); required ones must be columns. ``layout`` and ``selected_cols``: the
    column order of a reference file without header (``unival.tables.layouts``). ``media_root``: where media
    references start; a description's ``media`` wins over it, and the default is the table's folder. ``header``:
    True or False overrules the header decision (``unival.tables.delimited``). What a description says of layout,
    selected_cols and header wins over the arguments.

    Raises ConfigError for a description that cannot be meant and DataError (file, line, column) for data
    that cannot be used.
    """
    required = [str(getattr(f, "name", f)) for f in fields or () if getattr(f, "required", True)]
    description: dict[str, Any] = {}
    name = ""
    if isinstance(source, Mapping) or os.fspath(source).lower().endswith((".yaml", ".yml")):
        description, folder, name = read_description(
            source if isinstance(source, Mapping) else os.fspath(source)
        )
        path = _resolve(description["path"], folder)
        if description.get("media") is not None:
            media_root = _resolve(description["media"], folder)
            if not os.path.exists(media_root):
                raise DataError(
                    "the 'media' of the table description does not exist; give a folder or a .tar file",
                    path=media_root,
                )
    else:
        path = os.fspath(source)
    form = description.get("format")
    files = files_of(path)
    if media_root is None:
        media_root = absolute(path if os.path.isdir(path) else os.path.dirname(path) or ".")
    given = description.get("layout") or layout
    selected = description.get("selected_cols")
    explicit = description.get("header")

    def open_file(path: str) -> Table:
        kind = _format(path, form)
        if kind in _OTHERS:
            return _OTHERS[kind](path, media_root=media_root)
        return (TsvTable if kind == "tsv" else CsvTable)(
            path,
            header=header if explicit is None else explicit,
            layout=get_layout(given) if isinstance(given, str) else given,
            selected_cols=selected_cols if selected is None else _as_selection(selected, name),
            required=_file_columns(required, description, name),
            optional=[str(getattr(f, "name", f)) for f in fields or ()],
            media_root=media_root,
        )

    table = open_file(path) if files == [path] else ConcatTable([open_file(file) for file in files], path)
    if any(description.get(key) for key in ("where", "fields", "constants", "group", "limit")):
        table = DescribedTable(table, description, name)
    require(table, required)
    return table


def absent_files(source: str | os.PathLike[str] | Mapping[str, Any]) -> list[str]:
    """Return the files and media folders of a table that are not there, without opening or indexing any.

    Raises ConfigError and DataError for a description or pattern that cannot be meant.
    """
    wanted: list[str] = []
    path = source
    if isinstance(source, Mapping) or os.fspath(source).lower().endswith((".yaml", ".yml")):
        if not isinstance(source, Mapping) and not os.path.exists(source):
            return [os.fspath(source)]
        description, folder, _ = read_description(
            source if isinstance(source, Mapping) else os.fspath(source)
        )
        path = _resolve(description["path"], folder)
        wanted += [] if description.get("media") is None else [_resolve(description["media"], folder)]
    return [file for file in (*files_of(os.fspath(path)), *wanted) if not os.path.exists(file)]  # type: ignore[arg-type]


def _format(path: str, form: str | None) -> str:
    ending = os.path.splitext(path)[1].lstrip(".").lower()
    if form is None and ending in ("gz", "bz2", "xz", "zst", "tgz"):
        raise ConfigError(
            f"{path}: rows are read in any order, which '{ending}' cannot; decompress the file first"
        )
    form = form or _ENDINGS.get(ending, ending)
    if form not in _FORMATS:
        raise ConfigError(
            f"{path}: '{form}' is not a table format; formats: {', '.join(_FORMATS)}."
            f"{nearest(form, _FORMATS)} For a file with another ending, set 'format:' in a table description."
        )
    return form


def _resolve(path: Any, folder: str) -> str:
    return os.path.join(folder, os.path.expanduser(os.fspath(path)))


def _as_selection(value: Any, name: str) -> str | list[int]:
    if isinstance(value, (str, list)):
        return value
    if isinstance(value, int) and not isinstance(
        value, bool
    ):  # YAML reads an unquoted 0,4,2 as text, 3 as int
        return [value]
    raise ConfigError(f"{name}: 'selected_cols' is {value!r}; expected column numbers such as '0,4,2'")


def _file_columns(required: list[str], description: Mapping[str, Any], name: str) -> list[str]:
    """Return the columns the file itself must have: the names by which the first line is judged."""
    mapped = {str(k): str(v) for k, v in (description.get("fields") or {}).items()}
    given = {*mapped, *map(str, description.get("constants") or ())}
    columns = [c for f, t in mapped.items() for c in template_columns(t, f"{name}: fields: {f}")]
    columns += [str(c) for c in description.get("where") or ()]
    columns += [r for r in required if r not in given]
    return list(dict.fromkeys(columns))
