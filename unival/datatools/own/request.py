"""What a conversion is asked to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unival.specs import TaskSpec


@dataclass(frozen=True)
class Request:
    """What to read. ``source``: a folder, a table, a COCO or VQA JSON file, or a .tar.

    ``media``: folder of the media files where it is not the source's own. ``columns``: field -> column where
    the names differ. ``annotations``: second file of the official VQA format. ``box_format``: "xyxy" or "xywh".
    ``keep``: columns of a table that are taken along where they are there.
    """

    source: Path
    spec: TaskSpec
    media: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    annotations: Path | None = None
    box_format: str = "xyxy"
    keep: tuple[str, ...] = ()
