"""Readers of other people's data: each yields records of named fields with a media reference."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unival.datatools.own.report import Report
from unival.datatools.own.sources.coco import read_coco
from unival.datatools.own.sources.folder import read_folder, read_rows, table_in
from unival.datatools.own.sources.webdataset import read_tars
from unival.errors import ConfigError, DataError
from unival.media.names import is_hidden
from unival.specs import TaskSpec
from unival.tables import Row

__all__ = ["Request", "read_source"]


@dataclass(frozen=True)
class Request:
    """What to read. ``source``: a folder, a table, a COCO or VQA JSON file, or a .tar.

    ``media``: folder of the media files where it is not the source's own. ``columns``: field -> column where
    the names differ. ``annotations``: second file of the official VQA format. ``box_format``: "xyxy" or "xywh".
    """

    source: Path
    spec: TaskSpec
    media: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    annotations: Path | None = None
    box_format: str = "xyxy"


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
        table = table_in(source)
        if table is not None:
            return read_rows(table, request.spec, media, request.columns, request.box_format, report)
        tars = [path for path in sorted(source.glob("*.tar")) if not is_hidden(path.name)]
        return read_tars(tars, request.spec, report) if tars else read_folder(source, request.spec, report)
    suffix = source.suffix.lower()
    if suffix == ".tar":
        return read_tars([source], request.spec, report)
    if suffix == ".json":
        return read_coco(source, request.spec, media, request.annotations, report)
    if suffix in (".csv", ".tsv", ".jsonl", ".yaml", ".yml"):
        return read_rows(source, request.spec, media, request.columns, request.box_format, report)
    raise ConfigError(
        f"{os.fspath(source)}: expected a folder, a .csv, .tsv or .jsonl table, a COCO or VQA .json, or a .tar"
    )
