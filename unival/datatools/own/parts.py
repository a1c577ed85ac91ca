"""Which rows train, which validate, which test: a column that says so, or shares of what must stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unival.datatools.own.report import Report
from unival.datatools.own.split import SPLITS, assign
from unival.errors import ConfigError, DataError
from unival.specs import TaskSpec
from unival.specs.base import is_absent, shorten

COLUMN = "split"
_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_SAID = ("text", "hypothesis", "question")  # what a model is told beside the medium


def part_name(value: Any) -> str | None:
    """Return "train", "val" or "test" for one of their usual spellings, None for anything else."""
    return _NAMES.get(str(value).strip().lower())


def parts_of(
    records: Sequence[dict[str, Any]],
    spec: TaskSpec,
    by: str | None,
    shares: Mapping[str, float],
    seed: int,
    report: Report,
) -> dict[str, list[dict[str, Any]]]:
    """Return the records of each part, "train", "val" and "test" as far as they have any.

    Without ``by`` a column ``split`` decides; where there is none, rows with the same value of ``by`` (the
    medium, unless it is given) stay together. What of the other parts is in the training part too is remarked.

    Raises:
        DataError: a row whose ``split`` is no part. ConfigError: too few values for the shares, no row to train on.
    """
    said = sum(not is_absent(record.get(COLUMN)) for record in records)
    if by is None and 0 < said < len(records):
        raise DataError(
            f"{len(records) - said:,} of {len(records):,} rows have no value in the column 'split': fill it in, or "
            f"split anew with --by {spec.modality}"
        )
    if by is None and said:
        names = [part_name(record[COLUMN]) for record in records]
        if None in names:
            value = records[names.index(None)][COLUMN]
            raise DataError(
                f"a row has the split {shorten(value)}: expected train, val or test (--by COLUMN splits anew)"
            )
        report.remarks.append("the column 'split' says which rows train, validate and test")
    else:
        column = by or spec.modality
        absent = sum(is_absent(record.get(column)) for record in records)
        if absent:
            raise ConfigError(f"--by {column}: {absent:,} of {len(records):,} rows have no value there")
        keys = [str(record[column]) for record in records]
        place = assign(keys, shares, seed)
        names = [place[key] for key in keys]
    parts = {
        name: [
            {key: value for key, value in record.items() if key != COLUMN}
            for record, found in zip(records, names, strict=True)
            if found == name
        ]
        for name in SPLITS
    }
    found = {name: rows for name, rows in parts.items() if rows}
    if "train" not in found:
        raise ConfigError("no row is left to train on: no 'split' of a row that can be used is train")
    report.remarks += _overlaps(found, spec)
    return found


def _overlaps(parts: Mapping[str, Sequence[Mapping[str, Any]]], spec: TaskSpec) -> list[str]:
    """Name what the validation and test parts have in common with the training part."""
    columns = [spec.modality, *(f.name for f in spec.fields if f.name in _SAID and not f.target)]
    remarks = []
    for column in columns:
        known = {str(row.get(column)).lower() for row in parts["train"]}
        for name in ("val", "test"):
            own = {
                str(row.get(column)).lower() for row in parts.get(name, ()) if not is_absent(row.get(column))
            }
            both = len(own & known)
            if both:
                what = f"{column}s" if column != "hypothesis" else "hypotheses"
                remarks.append(
                    f"{both:,} of {len(own):,} {name} {what} are in the training part too"
                    + (f"; --by {column} keeps them apart" if column != spec.modality else "")
                )
    return remarks
