"""Readers of other people's data: each yields records of named fields with a media reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

from unival.datatools.own.report import Report
from unival.datatools.own.request import Request
from unival.datatools.own.sources.coco import read_coco
from unival.datatools.own.sources.folder import read_folder, read_rows, tables_in
from unival.datatools.own.sources.webdataset import read_tars
from unival.errors import ConfigError, DataError
from unival.media.names import is_hidden
from unival.tables import Row

__all__ = ["Request", "read_source"]


def read_source(request: Request, report: Report) -> Iterator[Row]:
    """Yield the rows of a source, its kind found by what it is; ``report`` counts what is passed over.

    The field named like the task's modality is a path, or ``archive.tar/member``. Values are as the source has them.

    Raises:
        ConfigError: a source of no known kind. DataError: a file that is not what its kind promises.
    """
    source = request.source
    if not source.exists():
        raise DataError("there is no such file or folder", path=str(source))
    media = request.media or (source if source.is_dir() else source.parent)
    if source.is_dir():
        tables = tables_in(source)
        if tables:
            return chain.from_iterable(
                read_rows(path, request, media, report, split=part) for path, part in tables.items()
            )
        tars = [path for path in sorted(source.glob("*.tar")) if not is_hidden(path.name)]
        return read_tars(tars, request.spec, report) if tars else read_folder(source, request.spec, report)
    suffix = source.suffix.lower()
    if suffix == ".tar":
        return read_tars([source], request.spec, report)
    if suffix == ".json":
        return read_coco(source, request.spec, media, request.annotations, report)
    if suffix in (".csv", ".tsv", ".jsonl", ".yaml", ".yml"):
        return read_rows(source, request, media, report)
    raise ConfigError(
        f"{os.fspath(source)}: expected a folder, a .csv, .tsv or .jsonl table, a COCO or VQA .json, or a .tar"
    )
