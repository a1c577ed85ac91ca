"""WebDataset-style archives: files that share a name up to a dot are one sample."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.datatools.own.report import HIDDEN, UNUSABLE, Report
from unival.datatools.own.sources.folder import USUAL
from unival.errors import DataError, RowNumber
from unival.media.endings import ENDINGS
from unival.media.names import is_hidden
from unival.media.tar import members, read_member
from unival.specs import TaskSpec
from unival.tables import Row

TEXTS = ("txt", "text", "caption", "cls")


@dataclass
class _Sample:
    """``media``: its files of the modality asked for; ``texts``: its other files by ending."""

    media: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


def read_tars(archives: Sequence[Path], spec: TaskSpec, report: Report) -> Iterator[Row]:
    """Yield the samples of archives; media stay where they are, as ``archive.tar/member``.

    Fields come from the sample's ``.json`` (keys named as the task's fields, or as people usually name them), else
    its text file is the target where the task asks nothing. Of several media in one sample the first is taken; files
    that belong to no sample with a medium, and hidden ones, are counted.

    Raises:
        DataError: an archive without any sample of the modality.
    """
    for archive in archives:
        samples = _grouped(members(str(archive)), spec.modality, report)
        number = 0
        for key, sample in samples.items():
            if not sample.media:
                report.add(f"samples without a medium for '{spec.modality}'", f"{archive.name}/{key}")
                continue
            number += 1
            report.add(
                "media beside the first of their sample",
                f"{archive.name}/{sample.media[-1]}" if len(sample.media) > 1 else None,
                len(sample.media) - 1,
            )
            try:
                values = _values(archive, key, sample, spec)
            except DataError as error:
                report.add(UNUSABLE, str(error))
                continue
            yield Row(values, str(archive), RowNumber(number))
        if not number:
            raise DataError(
                f"no sample with a medium for '{spec.modality}' in the archive", path=str(archive)
            )


def _grouped(names: Sequence[str], modality: str, report: Report) -> dict[str, _Sample]:
    """Samples by key, in the archive's order.

    A file belongs to the others that have its name up to the last dot; so "song 0.1.jpg" goes with "song 0.1.txt".
    Where a medium has no text of that name, it goes with the text whose name it begins with up to another dot:
    "x.left.jpg" and "x.right.jpg" with "x.txt".
    """
    parts: list[tuple[str, str, str]] = []  # member, stem, ending
    for member in names:
        if is_hidden(*member.split("/")):
            report.add(HIDDEN, member)
            continue
        folder, base = posixpath.split(member)
        stem, _, ending = base.rpartition(".")
        if stem:
            parts.append((member, posixpath.join(folder, stem), ending.lower()))
    is_medium = {member: f".{ending}" in ENDINGS[modality] for member, _, ending in parts}
    described = {
        stem for member, stem, ending in parts if not is_medium[member] and ending in (*TEXTS, "json")
    }
    samples: dict[str, _Sample] = {}
    for member, stem, ending in parts:
        sample = samples.setdefault(_key(stem, described), _Sample())
        if is_medium[member]:
            sample.media.append(member)
        else:
            sample.texts[ending] = member
    return samples


def _key(stem: str, described: set[str]) -> str:
    key = stem
    while key not in described:
        shorter = key.rpartition(".")[0]
        if not posixpath.basename(shorter) or posixpath.dirname(shorter) != posixpath.dirname(stem):
            return stem
        key = shorter
    return key


def _values(archive: Path, key: str, sample: _Sample, spec: TaskSpec) -> dict[str, Any]:
    values: dict[str, Any] = {} if spec.joins_ids else {"id": key}
    values[spec.modality] = f"{archive}/{sample.media[0]}"
    if "json" in sample.texts:
        content = {name.lower(): value for name, value in _json(archive, sample.texts["json"]).items()}
        for item in spec.fields:
            usual = USUAL.get(item.name, ()) if item.required or item.target else ()
            name = next((name for name in (item.name, *usual) if name in content), None)
            if name is not None and item.name not in values and content[name] not in values.values():
                values[item.name] = content[name]
    text = next((sample.texts[ending] for ending in TEXTS if ending in sample.texts), None)
    if text is not None and not spec.asked and spec.answer is not None and spec.answer.name not in values:
        values[spec.answer.name] = _text(archive, text).strip()
    return values


def _text(archive: Path, member: str) -> str:
    try:
        return read_member(str(archive), member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"invalid UTF-8 at byte {error.start + 1}; save it as UTF-8", path=f"{archive}/{member}"
        ) from None


def _json(archive: Path, member: str) -> dict[str, Any]:
    try:
        content = json.loads(_text(archive, member))
    except (RecursionError, ValueError) as error:
        raise DataError(f"expected JSON ({error})", path=f"{archive}/{member}") from None
    if not isinstance(content, dict):
        raise DataError("expected a JSON object of fields", path=f"{archive}/{member}")
    return content
