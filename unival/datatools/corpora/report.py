"""What a preparation did: rows of every table, what was left out and why, which media are missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LISTED = 1000  # missing media named in the report file
SHOWN = 5  # of them printed


@dataclass
class Report:
    """Counts of one run. ``dropped`` counts (split, reason), of records or rows; ``missing`` media name -> rows."""

    corpus: str
    tables: dict[str, int] = field(default_factory=dict)
    records: Counter[str] = field(default_factory=Counter)
    media: dict[str, int] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    repaired: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    undecodable: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the report file: everything, missing media capped at the first 1000."""
        listed = dict(sorted(self.missing.items())[:LISTED])
        content: dict[str, Any] = {
            "corpus": self.corpus,
            "tables": self.tables,
            "records": dict(sorted(self.records.items())),
            "media": self.media,
            "dropped": [
                {"split": split, "reason": reason, "count": count}
                for (split, reason), count in sorted(self.dropped.items())
            ],
            "repaired": dict(sorted(self.repaired.items())),
            "missing_media": {"count": len(self.missing), "first": listed},
            "undecodable_media": self.undecodable,
            "notes": self.notes,
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def lines(self) -> list[str]:
        """Return what is printed."""
        out = [f"{self.corpus}: rows"]
        out += [f"  {name:<60} {rows:>9}" for name, rows in self.tables.items()]
        for split in sorted(self.records):
            left = f"{self.records[split]} records"
            if split in self.media:
                left += f" of {self.media[split]} media"
            out.append(f"  split {split}: {left}")
        out += [f"left out, {split}: {n} ({why})" for (split, why), n in sorted(self.dropped.items())]
        out += [f"repaired: {count} ({what})" for what, count in sorted(self.repaired.items())]
        if self.missing:
            first = ", ".join(sorted(self.missing)[:SHOWN])
            out.append(
                f"missing media: {len(self.missing)} files: {first}{', ...' if len(self.missing) > SHOWN else ''}"
            )
        out += [f"cannot be decoded: {text}" for text in self.undecodable]
        return out + [f"note: {text}" for text in self.notes]
