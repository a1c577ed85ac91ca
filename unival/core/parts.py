"""The folder of a run: parts that processes append to, and the claim that says whose they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from unival.core.files import encoded, make_folder, write_text, writing
from unival.errors import ConfigError

RUN, PARTS, MERGED = "run.json", "parts", "predictions.jsonl"
Record = dict[str, Any]


class Parts:
    """``run.json`` identifies the run; ``parts/<shard>-of-<n>.jsonl`` are what its processes have predicted.

    A run that was killed goes on where it stopped, with any number of processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Make the folder this run's. Raises ConfigError when it holds predictions of another run."""
        make_folder(self.folder / PARTS)
        path = self.folder / RUN
        mine = json.loads(json.dumps(identity, default=str))
        if path.is_file() and any((self.folder / PARTS).iterdir()):
            try:
                theirs = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                theirs = {}
            changed = _differences(theirs, mine)
            if changed:
                raise ConfigError(
                    f"{self.folder} holds predictions of another run, which differs in {'; '.join(changed)}. "
                    "Give another --out, or --restart to discard them."
                )
        write_text(path, json.dumps(mine, indent=1, sort_keys=True) + "\n")

    def read(self) -> dict[int, Record]:
        """Return row -> record over all parts.

        A line torn by a kill is passed over; of several records of a row a prediction wins over an error.
        """
        records: dict[int, Record] = {}
        for path in sorted((self.folder / PARTS).glob("*.jsonl")):
            for record in _lines(path):
                known = records.get(record["row"])
                if known is None or ("error" in known and "error" not in record):
                    records[record["row"]] = record
        return records

    def open(self, shard: int, num_shards: int) -> BinaryIO:
        """Open the part of a process for appending, behind a torn last line if there is one."""
        path = self.folder / PARTS / f"{shard}-of-{num_shards}.jsonl"
        make_folder(path.parent)
        file = open(path, "ab+", buffering=0)  # noqa: SIM115  (the caller closes it)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        return file  # type: ignore[return-value]

    def append(self, file: BinaryIO, records: Iterable[Record]) -> None:
        """Add records to a part. Raises OutputError when they cannot be written."""
        with writing(self.folder):
            file.write(encoded("".join(f"{to_line(record)}\n" for record in records)))

    def merge(self, records: Iterable[Record]) -> Path:
        """Write ``predictions.jsonl``, in the order given."""
        path = self.folder / MERGED
        write_text(path, "".join(f"{to_line(record)}\n" for record in records))
        return path


def to_line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _lines(path: Path) -> Iterator[Record]:
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("row"), int):
                yield record


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{name}.{key}" if name else str(key))
    return flat


def _differences(theirs: Any, mine: Any) -> list[str]:
    old, new = _flat(theirs), _flat(mine)
    return [
        f"{key} ({_short(old.get(key))} there, {_short(new.get(key))} now)"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
