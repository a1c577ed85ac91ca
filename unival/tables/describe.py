"""Table descriptions: a mapping (or YAML file) that makes any table readable as it is.

path: flickr8k_small/captions.tsv     # relative to the description's folder
where: {split: train}                 # keep rows whose value is this, or one of a list
fields: {image: "{clip}.mp4"}         # canonical name: column, or template over columns
constants: {dataset: flickr8k}        # canonical name: the same value in every row
media: flickr8k_small/images_train.tar  # folder or tar that media references start from
group: image                          # one row per value of this name; other values become lists
limit: 1000                           # the first rows (or groups) that pass
format: tsv | csv | jsonl | parquet | arrow | webdataset  # where the file's ending does not say it
header: true | false                  # where the header rule decides wrongly
layout: caption                       # a reference layout, for files without header
selected_cols: "0,4,2"
"""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from unival.core.yaml_files import read_yaml
from unival.errors import ConfigError, DataError, nearest
from unival.tables.base import Table
from unival.tables.delimited import require
from unival.tables.row import Row, listing

KEYS = (
    "path", "where", "fields", "constants", "media", "group", "limit", "format", "header", "layout", "selected_cols"
)  # fmt: skip


def read_description(source: str | Mapping[str, Any]) -> tuple[dict[str, Any], str, str]:
    """Return (description, folder its relative paths start from, name for messages), checked for form.

    Raises ConfigError for unknown keys, a missing path or values of the wrong kind, DataError for a YAML
    file that cannot be read.
    """
    if isinstance(source, Mapping):
        given, folder, name = dict(source), os.getcwd(), "table description"
    else:
        given, folder, name = _yaml(source), os.path.dirname(os.path.abspath(source)), source
    for key in given:
        if key not in KEYS:
            raise ConfigError(
                f"{name}: unknown key '{key}'.{nearest(str(key), KEYS)} Keys: {', '.join(KEYS)}"
            )
    kinds: dict[str, tuple[tuple[type, ...], str]] = {
        "path": (
            (str, os.PathLike),
            "the path of a table: a .tsv, .csv, .jsonl, .parquet, .arrow or .tar file",
        ),
        "where": ((Mapping,), "a mapping such as {split: train}"),
        "fields": ((Mapping,), "a mapping such as {caption: sentence}"),
        "constants": ((Mapping,), "a mapping such as {type: caption}"),
        "media": ((str, os.PathLike), "a folder or a .tar file"),
        "group": ((str,), "the name of one column, such as image"),
        "limit": ((int,), "a number of rows of at least 1"),
        "header": ((bool,), "true or false"),
        "format": ((str,), "tsv, csv, jsonl, parquet, arrow or webdataset"),
        "layout": ((str,), "the name of a layout"),
    }
    for key, (types, expected) in kinds.items():
        value = given.get(key)
        wrong = value is not None and not isinstance(value, types)
        if wrong or (key == "limit" and value is not None and (value is True or value < 1)):
            raise ConfigError(f"{name}: '{key}' is {value!r}; expected {expected}")
    if given.get("path") is None:
        raise ConfigError(f"{name}: 'path' is missing; expected {kinds['path'][1]}")
    return given, folder, name


def _yaml(path: str) -> dict[str, Any]:
    loaded = read_yaml(path, DataError)
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping with 'path:', found {type(loaded).__name__}")
    return loaded


def as_text(value: Any) -> str:
    """Return the form in which ``where`` compares: YAML's and JSON's true is "true", null is ""."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def template_parts(template: str, where: str) -> list[tuple[str, str | None]] | None:
    """Return the (text, column that follows it) pairs of a template, or None for a plain column name.

    Raises ConfigError for a template that is more than names in braces, or names no column.
    """
    if "{" not in template and "}" not in template:
        return None
    parts: list[tuple[str, str | None]] = []
    try:
        for text, column, spec, conversion in string.Formatter().parse(template):
            if column == "" or spec or conversion:
                raise ConfigError(
                    f"{where}: template '{template}'; only column names may stand in braces: '{{clip}}.mp4'"
                )
            parts.append((text, column))
    except ValueError as error:
        raise ConfigError(f"{where}: template '{template}': {error}") from None
    if all(column is None for _, column in parts):
        raise ConfigError(
            f"{where}: template '{template}' names no column; use 'constants:' for fixed values"
        )
    return parts


def template_columns(template: str, where: str) -> list[str]:
    """Return the columns that a value of ``fields`` reads."""
    parts = template_parts(template, where)
    return [template] if parts is None else [column for _, column in parts if column is not None]


class DescribedTable(Table):
    """A table seen through ``where``, ``fields``, ``constants``, ``group`` and ``limit``.

    The file's own columns stay there under their names unless a field has the same name. The rows that pass
    ``where`` are found once, at the start, and so are the groups. A grouped row stands at the line of its
    first row; a column in which its rows differ holds the list of their distinct values, in order.
    """

    def __init__(self, table: Table, description: Mapping[str, Any], name: str) -> None:
        self.table, self.path, self.media_root = table, table.path, table.media_root
        self._constants = {str(k): v for k, v in (description.get("constants") or {}).items()}
        self._fields: dict[str, tuple[str, list[tuple[str, str | None]] | None]] = {}
        for field, value in (description.get("fields") or {}).items():
            template = as_text(value)
            place = f"{name}: fields: {field}"
            require(table, template_columns(template, place))
            self._fields[str(field)] = (template, template_parts(template, place))
        twice = set(self._fields) & set(self._constants)
        if twice:
            raise ConfigError(f"{name}: '{sorted(twice)[0]}' is in 'fields' and in 'constants'; keep one")
        added = (*self._fields, *self._constants)
        self.columns = added + tuple(c for c in table.columns if c not in added)
        self._rows = self._filter(description.get("where") or {})
        limit = description.get("limit")
        self._groups: list[list[int]] | None = None
        self._size = len(table) if self._rows is None else len(self._rows)
        if description.get("group") is not None:
            self._groups = self._grouped(str(description["group"]))
            self._size = len(self._groups)
        self._size = self._size if limit is None else min(limit, self._size)

    def _filter(self, where: Mapping[str, Any]) -> npt.NDArray[np.int64] | None:
        if not where:
            return None
        require(self.table, [str(column) for column in where])
        tests: dict[str, Callable[[Any], bool]] = {}
        seen: dict[str, dict[str, None]] = {}
        for column, wanted in where.items():
            values = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
            accepted = frozenset(as_text(v) for v in values)
            tests[str(column)] = partial(_accept, accepted, seen.setdefault(str(column), {}))
        rows = self.table.matching(tests)
        if not len(rows):
            found = "; ".join(f"'{c}' has {listing(list(v), 8)}" for c, v in seen.items() if v)
            raise DataError(f"no row passes where: {dict(where)}; {found}", path=self.path)
        return rows

    def _grouped(self, column: str) -> list[list[int]]:
        require(self, [column])
        members: dict[str, list[int]] = {}
        for position in range(self._size):
            members.setdefault(as_text(self._row(position)[column]), []).append(position)
        return list(members.values())

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:
        position = self._position(index)
        if self._groups is None:
            return self._row(position)
        rows = [self._row(member) for member in self._groups[position]]
        values = dict(rows[0])
        for name in values:
            distinct = list(dict.fromkeys(as_text(row[name]) for row in rows))
            if len(distinct) > 1:
                values[name] = distinct
        return Row(values, rows[0].path, rows[0].line, rows[0].media_root)

    @property
    def files(self) -> tuple[str, ...]:
        return self.table.files

    def _row(self, position: int) -> Row:
        row = self.table[position if self._rows is None else int(self._rows[position])]
        if not self._fields and not self._constants:
            return row
        values = dict(row)
        for field, (column, parts) in self._fields.items():
            values[field] = (
                row[column]
                if parts is None
                else "".join(text + ("" if name is None else as_text(row[name])) for text, name in parts)
            )
        values.update(self._constants)
        return Row(values, row.path, row.line, row.media_root)

    def matching(self, accept: dict[str, Callable[[Any], bool]]) -> npt.NDArray[np.int64]:
        rows = (i for i, row in enumerate(self) if all(test(row[c]) for c, test in accept.items()))
        return np.fromiter(rows, np.int64)


def _accept(accepted: frozenset[str], seen: dict[str, None], value: Any) -> bool:
    text = as_text(value)
    if len(seen) < 9:  # a few values for the message, should nothing pass
        seen[text] = None
    return text in accepted
