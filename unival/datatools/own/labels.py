"""Labels as people write them: true and false, 0 and 1, yes and no of any case become those of the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unival.datatools.own.report import Report
from unival.errors import ConfigError, nearest
from unival.specs import TaskSpec
from unival.specs.base import is_absent, shorten
from unival.specs.matching import LabelSpec
from unival.tables import Row

_COLUMN = "label"
_TRUTH = {
    "true": "yes", "t": "yes", "y": "yes", "1": "yes", "false": "no", "f": "no", "n": "no", "0": "no",
}  # fmt: skip


def with_labels(
    rows: Sequence[Row], spec: TaskSpec, given: Mapping[str, str], report: Report
) -> Sequence[Row]:
    """Return the rows with the task's own labels where they have other spellings of them.

    ``given``: value -> label, which wins. Values that mean nothing stay, and are left out row by row later on.

    Raises:
        ConfigError: a task without labels, an unknown label, or numbers that may mean several things.
    """
    if not isinstance(spec, LabelSpec):
        if given:
            raise ConfigError(f"--labels: task '{spec.name}' has no fixed labels")
        return rows
    for value, label in given.items():
        if label not in spec.label_names:
            raise ConfigError(
                f"--labels {value}={label}: the labels are {', '.join(spec.labels)}.{nearest(label, spec.label_names)}"
            )
    counts = Counter(_spelt(row[_COLUMN]) for row in rows if not is_absent(row.get(_COLUMN)))
    unknown = [value for value in counts if value not in spec.label_names and value not in given]
    numbers = sorted(value for value in counts if value.lstrip("-").isdigit() and value not in given)
    if len(spec.labels) > 2 and set(numbers) - {"0", "1"}:
        raise ConfigError(
            f"the labels {', '.join(numbers)} are numbers: say what each means, such as --labels "
            f"{' '.join(f'{n}={label}' for n, label in zip(numbers, spec.labels, strict=False))} (with your meaning)"
        )
    names = {**{value: _TRUTH[value] for value in unknown if value in _TRUTH}, **given}
    if not names:
        return rows
    report.remarks.append(
        "labels: " + ", ".join(f"{value} is {names[value]} ({counts[value]:,})" for value in names)
    )
    return [_renamed(row, names) for row in rows]


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    value = row.get(_COLUMN)
    label = None if is_absent(value) else names.get(_spelt(value))
    return row if label is None else Row({**row, _COLUMN: label}, row.path, row.line, row.media_root)


def _spelt(value: Any) -> str:
    """A value as labels are looked up: small letters, whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()


def one_case(records: Sequence[Mapping[str, Any]], fields: Sequence[str], lowercase: bool) -> list[str]:
    """Return a remark where targets differ by their case only; with ``lowercase`` there is nothing to remark.

    ``fields``: the columns of the targets. Cells may be texts or lists of them.
    """
    if lowercase:
        return []
    spellings: dict[str, Counter[str]] = {}
    for record in records:
        for name in fields:
            for text in _texts(record.get(name)):
                spellings.setdefault(text.lower(), Counter())[text] += 1
    twice = [found for found in spellings.values() if len(found) > 1]
    if not twice:
        return []
    twice.sort(key=lambda found: -found.total())
    shown = "; ".join(
        ", ".join(f"{shorten(text, 30)} {count:,}" for text, count in found.most_common(3))
        for found in twice[:3]
    )
    more = f" and {len(twice) - 3:,} more" if len(twice) > 3 else ""
    return [
        f"targets that differ by case only, each learnt as a word of its own: {shown}{more}; "
        "--lowercase makes them one"
    ]


def lowered(value: Any) -> Any:
    """Return a target cell in small letters: a text, a list of texts, or a mapping answer -> confidence."""
    if isinstance(value, str):
        return value.lower()
    if isinstance(value, list):
        return [lowered(item) for item in value]
    if isinstance(value, dict):
        return {lowered(key): item for key, item in value.items()}
    return value


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str)]
