"""A source's rows, one by one: is the medium there, and can a run learn from it or predict it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from unival.datatools.own.report import MISSING, UNUSABLE, Report
from unival.errors import ConfigError, DataError
from unival.media import MediaError
from unival.media.names import absence, absolute, existing
from unival.specs import SpecOptions, TaskSpec
from unival.specs.answers import one_answer
from unival.specs.base import is_absent, located, text_of
from unival.specs.inputs import media_reference
from unival.tables import Row
from unival.vocabulary.boxes import inside, not_shares

_OPTIONS = SpecOptions()
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
    from unival.media import MediaLoader

    return MediaLoader().image_size(place)
