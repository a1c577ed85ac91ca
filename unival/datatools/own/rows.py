"""A source's rows, one by one: is the medium there, and can a run learn from it or predict it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from unival.core.sampling import evenly
from unival.datatools.own.report import MISSING, UNREADABLE, UNUSABLE, Report
from unival.errors import ConfigError, DataError
from unival.media import MediaError, MediaLoader
from unival.media.names import absence, absolute, existing
from unival.specs import SpecOptions, TaskSpec
from unival.specs.answers import one_answer
from unival.specs.base import is_absent, located, text_of
from unival.specs.inputs import media_reference
from unival.tables import Row
from unival.vocabulary.boxes import inside, not_shares
from unival.vocabulary.texts import prompt_texts
from unival.vocabulary.vocabulary import Vocabulary

_OPTIONS = SpecOptions(patch_image_size=8, patch_frame_size=8, num_frames=1, max_audio_len=64)
_DECODED = 48  # media that are decoded; all of them when one of these cannot be
_RATE = 16000
_BASE64 = 256  # characters from which a cell without a dot is a file's content and no name


def usable(rows: Iterable[Row], spec: TaskSpec, folder: Path, report: Report) -> list[dict[str, Any]]:
    """Return the values of the rows that can be used, media as references from ``folder``.

    Rows whose medium is absent, whose values cannot be used, or that have no target where others have one, are
    left out and counted in ``report``. Where no row has a target, all are kept: they can be predicted.
    """
    if not spec.reads_media and spec.modality not in {f.name for f in spec.fields}:
        raise ConfigError(f"task '{spec.name}' has no media to convert: its tables are used as they are")
    real = os.path.realpath(folder)
    kept: list[tuple[dict[str, Any], bool, Row]] = []
    subjects: dict[str, str] = {}
    repeated = False
    for row in rows:
        try:
            path = media_reference(row, spec.modality)
            place = path if "." not in path and len(path) > _BASE64 else _found(path)
            if place is None:
                report.add(MISSING, _said(path))
                continue
            reference = _checked(row, spec, place)
            _prepared(row, spec, reference is not None)
        except (DataError, MediaError) as error:
            report.add(UNUSABLE, str(error))
            continue
        values = {name: value for name, value in row.items() if not is_absent(value)}
        values[spec.modality] = os.path.relpath(place, real) if place is not path or "." in path else path
        for name in ("answer", "answers"):
            if isinstance(values.get(name), list):  # official objects become the texts they hold
                values[name] = [one_answer(answer) for answer in values[name] if not is_absent(answer)]
        if "id" in values:
            repeated |= subjects.setdefault(str(values["id"]), place) != place
        kept.append((values, reference is not None, row))
    if spec.joins_ids and repeated:
        report.remarks.append(
            f"ids repeat over different media: they are left away, rows of one {spec.modality} belong together"
        )
        kept = [({n: v for n, v in values.items() if n != "id"}, has, row) for values, has, row in kept]
    return _with_targets(kept, spec, report)


def decodable(
    records: list[dict[str, Any]], spec: TaskSpec, folder: Path, report: Report
) -> list[dict[str, Any]]:
    """Return the records without those whose media cannot be decoded: a sample is tried, all when one fails there."""
    if not spec.reads_media:
        return records
    real, loader = os.path.realpath(folder), MediaLoader()
    names = list(dict.fromkeys(str(record[spec.modality]) for record in records))
    tried = evenly(names, _DECODED)
    broken = {name: reason for name in tried if (reason := _unreadable(name, real, spec.modality, loader))}
    if broken:
        rest = [name for name in names if name not in set(tried)]
        broken |= {
            name: reason for name in rest if (reason := _unreadable(name, real, spec.modality, loader))
        }
    for record in records:
        if str(record[spec.modality]) in broken:
            report.add(UNREADABLE, broken[str(record[spec.modality])])
    return [record for record in records if str(record[spec.modality]) not in broken]


def _unreadable(name: str, folder: str, modality: str, loader: MediaLoader) -> str | None:
    if "." in name:  # else it holds the medium; the folder that names start at may not be there yet
        name = os.path.normpath(os.path.join(folder, name))
    try:
        if modality == "image":
            loader.image(name)
        elif modality == "video":
            loader.video(name, 1)
        else:
            loader.audio(name, _RATE)
    except MediaError as error:
        return str(error)
    return None


class _Blank(MediaLoader):
    """Gives media without looking for them: what is wrong with a row's texts shows without."""

    def image(self, ref: Any) -> Any:
        from PIL import Image

        return Image.new("RGB", (8, 8))

    def video(self, ref: Any, num_frames: int, *args: object) -> np.ndarray:
        return np.zeros((num_frames, 8, 8, 3), np.uint8)

    def audio(self, ref: Any, rate: int) -> np.ndarray:
        return np.zeros(64, np.float32)


@cache
def _bytes() -> Vocabulary:
    return Vocabulary.train(prompt_texts(), 512)


def _prepared(row: Row, spec: TaskSpec, training: bool) -> None:
    """Prepare a row as a run does, DataError for one that would stop it. Boxes have been looked at before."""
    if row.get("box") is None:
        spec.examples(row, _Blank(), _OPTIONS, _bytes(), training=training)


def _with_targets(
    kept: list[tuple[dict[str, Any], bool, Row]], spec: TaskSpec, report: Report
) -> list[dict[str, Any]]:
    name = next((f.name for f in spec.fields if f.target), "target")
    if kept and not any(has for _, has, _ in kept):
        report.remarks.append(
            f"no row has a value for '{name}': the rows can be predicted, neither trained on nor scored"
        )
        return [values for values, _, _ in kept]
    for _, has, row in kept:
        if not has:
            report.add(f"without a value for '{name}'", row.place)
    return [values for values, has, _ in kept if has]


def _found(path: str) -> str | None:
    """Return the reference of a medium that is there, from the root; None where it is not."""
    archive, mark, member = path.partition(".tar/")
    if mark and not os.path.isdir(f"{archive}.tar"):
        place = existing(f"{archive}.tar")
        return None if place is None else f"{absolute(place)}/{member}"
    place = existing(path)
    return None if place is None else absolute(place)


def _said(path: str) -> str:
    reason = absence(path)
    return path if reason == "no such file" else f"{path} ({reason})"


def _checked(row: Row, spec: TaskSpec, place: str) -> Any:
    """Return the row's target, None without one; DataError for values that a run would stop at."""
    for item in spec.fields:
        if item.required and not item.target and item.name not in (spec.modality, "box"):
            text_of(row, item.name)
    if row.get("box") is not None:
        from unival.specs.grounding import box_of

        box = box_of(row)
        if box is not None:
            with located(row, "box"):
                not_shares(box)
                inside(box, _size(place))
    return spec.reference(row, _OPTIONS)


@lru_cache(maxsize=64)
def _size(place: str) -> tuple[int, int]:
    return MediaLoader().image_size(place)
