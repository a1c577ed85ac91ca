"""The machine's living processes, read from /proc."""

from __future__ import annotations

import collections
from pathlib import Path


def children() -> dict[int, list[int]]:
    """Return the living children of each process; those that have ended and wait for their parent are left out."""
    found: dict[int, list[int]] = collections.defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_bytes()
            except OSError:
                continue
            state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
            if state not in (b"Z", b"X"):
                found[int(parent)].append(int(folder.name))
    return found


def tree(first: int) -> list[int]:
    """Return a process and all below it."""
    found, below = [first], children()
    for pid in found:  # grows while it is walked
        found += below[pid]
    return found
