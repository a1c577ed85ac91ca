"""Split a table: into training, validation and test parts with no medium in two of them, or by the size of boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unival.core.files import Output
from unival.core.seeding import rng_for
from unival.errors import ConfigError
from unival.metrics.grounding import SIZES, size_of
from unival.specs.base import bad_value
from unival.specs.grounding import box_of
from unival.tables import Table
from unival.tables.base import FileTable

SPLITS = ("train", "val", "test")


def assign(keys: list[str], shares: Mapping[str, float], seed: int = 7) -> dict[str, str]:
    """Return key -> split name for the distinct ``keys``, shuffled by ``seed``.

    Every split with a share above 0 gets at least one key; what is left is "train".

    Raises:
        ConfigError: shares that are negative or leave nothing to train on, or too few keys.
    """
    if any(share < 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ConfigError(f"shares {dict(shares)}: expected numbers of at least 0 with a sum below 1")
    distinct = list(dict.fromkeys(keys))
    wanted = {name: max(1, round(share * len(distinct))) for name, share in shares.items() if share > 0}
    if sum(wanted.values()) >= len(distinct):
        raise ConfigError(
            f"{len(distinct)} different media cannot be split into train, {', '.join(wanted)}; "
            "set the share of one of them to 0"
        )
    order = rng_for(seed, 0, 0, "split").permutation(len(distinct))
    result = dict.fromkeys(distinct, "train")
    start = 0
    for name, count in wanted.items():
        for position in order[start : start + count]:
            result[distinct[int(position)]] = name
        start += count
    return result


def split_table(
    table: Table, folder: str | Path, by: str, shares: Mapping[str, float], seed: int = 7
) -> dict[str, tuple[Path, int]]:
    """Write ``<stem>_<split>`` files of the table's own format into ``folder``.

    Rows keep their bytes; rows of a described table become JSON lines. Rows with the same value of ``by``
    stay together. Media references stay as they are, so the parts belong beside the table unless a media
    root is named where they are used.

    Returns:
        split -> (file, number of rows).
    """
    values = [str(row[by]) for row in table]
    place = assign(values, shares, seed)
    return _write(table, folder, [place[value] for value in values], SPLITS)


def split_sizes(
    table: Table, folder: str | Path, areas: tuple[float, float], column: str = "box"
) -> dict[str, tuple[Path, int]]:
    """Write ``<stem>_small``, ``_medium`` and ``_large``: the rows by the area of their box, squared pixels of the
    image, as rewards for targets of one size and the scores of sizes count it. Otherwise as :func:`split_table`.

    Raises:
        ConfigError: limits in the wrong order. DataError: a row without a box.
    """
    if not 0 <= areas[0] <= areas[1]:
        raise ConfigError(
            f"sizes {areas[0]:g},{areas[1]:g}: expected the end of small and the begin of large areas"
        )
    sizes = []
    for row in table:
        box = box_of(row, column)
        if box is None:
            raise bad_value(row, column, "expected a box as four numbers 'x0,y0,x1,y1', the field is empty")
        sizes.append(size_of(box, areas))
    return _write(table, folder, sizes, SIZES)


def _write(
    table: Table, folder: str | Path, names: Sequence[str], order: Sequence[str]
) -> dict[str, tuple[Path, int]]:
    """Write each row into the file of its name; names without rows have none."""
    plain = isinstance(table, FileTable)
    suffix = Path(table.path).suffix if plain else ".jsonl"
    lines: dict[str, list[bytes]] = {name: [] for name in order if name in set(names)}
    for number, name in enumerate(names):
        row = table.record(number) if isinstance(table, FileTable) else _json(dict(table[number]))
        lines[name].append(row)
    head = [table.head] if isinstance(table, FileTable) and table.head else []
    written = {}
    with Output() as output:
        for name, rows in lines.items():
            path = Path(folder) / f"{Path(table.path).stem}_{name}{suffix}"
            output.bytes(path, b"\n".join([*head, *rows]) + b"\n")
            written[name] = (path, len(rows))
        output.commit()
    return written


def _json(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8")
