"""WebDataset-style archives: files that share a name up to its first dot are one sample."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unival.errors import DataError
from unival.media.endings import ENDINGS
from unival.media.tar import members, read_member
from unival.specs import TaskSpec

TEXTS = ("txt", "text", "caption", "cls")


def read_tars(archives: Sequence[Path], spec: TaskSpec) -> Iterator[dict[str, Any]]:
    """Yield the samples of archives; media stay where they are, as ``archive.tar/member``.

    Fields come from the sample's ``.json`` (keys named as the task's fields), else its text file is the
    caption. A sample without a medium of the task's modality is left out.

    Raises:
        DataError: a sample whose JSON cannot be read, or an archive without any sample of the modality.
    """
    names = {field.name for field in spec.fields}
    for archive in archives:
        samples: dict[str, dict[str, str]] = {}
        for member in members(str(archive)):
            folder, base = posixpath.split(member)
            key, _, ending = base.partition(".")
            samples.setdefault(posixpath.join(folder, key), {})[ending.lower()] = member
        found = False
        for key, files in samples.items():
            media = next(
                (m for e, m in files.items() if f".{e.rpartition('.')[2]}" in ENDINGS[spec.modality]), None
            )
            if media is None:
                continue
            found = True
            record: dict[str, Any] = {"id": key, spec.modality: f"{archive}/{media}"}
            if "json" in files:
                record |= {k: v for k, v in _json(archive, files["json"]).items() if k in names}
            text = next((files[e] for e in TEXTS if e in files), None)
            if text is not None and spec.name == "caption" and "caption" not in record:
                record["caption"] = read_member(str(archive), text).decode("utf-8").strip()
            if spec.name == "caption":
                del record["id"]
            yield record
        if not found:
            raise DataError(
                f"no sample with a medium for '{spec.modality}' in the archive", path=str(archive)
            )


def _json(archive: Path, member: str) -> dict[str, Any]:
    try:
        content = json.loads(read_member(str(archive), member))
    except ValueError as error:
        raise DataError(f"expected JSON ({error})", path=f"{archive}/{member}") from None
    if not isinstance(content, dict):
        raise DataError("expected a JSON object of fields", path=f"{archive}/{member}")
    return content
