"""What a stream of updates loses to a checkpoint: ``python benchmarks/checkpoint_writing.py --millions 50``.

A network of that many million parameters is trained with Adam on the CPU, in turns without a checkpoint, with one whose
writing the updates wait for, and with one that is written beside them, as ``unival/tasks/saving.py`` does. A turn is
``--updates`` updates with one checkpoint after the second. Its stop lasts from there until updates go on; what a turn
takes longer than one without is its loss, which has the processor time that updates and writing take from each other
too. Both are given in updates, and as ratios of one run. A turn must be longer than the writing, else its end waits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
import zipfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTH = 1024


class Training:
    """Layers of a million parameters each and their updates."""

    def __init__(self, millions: int, rows: int) -> None:
        import torch

        from unival.tasks.optimizer import Adam

        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(millions)))
        self.optimizer = Adam(self.layers.parameters(), lr=1e-4)
        self.rows = torch.randn(rows, WIDTH)
        self.count = 0

    def update(self) -> None:
        self.layers(self.rows).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.count += 1

    def state(self) -> dict[str, Any]:
        history = [{"num_updates": self.count}]
        moments = self.optimizer.state_dict()
        return {
            "model": self.layers.state_dict(),
            "last_optimizer_state": moments,
            "optimizer_history": history,
        }


def save(training: Training, path: Path, beside: bool) -> None:
    from unival.tasks.saving import WRITER, write

    if not beside:
        write(WRITER.hold(training.state()), path, None)
        return
    WRITER.begin(lambda: write(WRITER.hold(training.state()), path, None))


def turn(training: Training, updates: int, path: Path | None, beside: bool) -> tuple[float, float]:
    """Seconds of a turn, and from its checkpoint until updates go on; what is still being written at its end is waited
    for."""
    from unival.tasks.saving import WRITER

    stop, begun = 0.0, time.perf_counter()
    for number in range(updates):
        training.update()
        if number == 1 and path is not None:
            started = time.perf_counter()
            save(training, path, beside)
            stop = time.perf_counter() - started
    WRITER.wait()
    return time.perf_counter() - begun, stop


@contextmanager
def timed(found: dict[str, list[float]]) -> Any:
    """Note the seconds of each part of a write, wherever it runs."""
    import torch

    from unival.tasks.snapshot import Snapshot

    places = {
        "copy in memory": (Snapshot, "take"),
        "torch.save": (torch, "save"),
        "fsync": (os, "fsync"),
        "reading back": (zipfile.ZipFile, "testzip"),
    }
    kept = {name: getattr(place, attribute) for name, (place, attribute) in places.items()}

    def around(name: str) -> Any:
        def call(*args: Any) -> Any:
            started = time.perf_counter()
            try:
                return kept[name](*args)
            finally:
                where = "beside" if threading.current_thread() is not threading.main_thread() else "waiting"
                found.setdefault(f"{name} ({where})", []).append(time.perf_counter() - started)

        return call

    for name, (place, attribute) in places.items():
        setattr(place, attribute, around(name))
    try:
        yield
    finally:
        for name, (place, attribute) in places.items():
            setattr(place, attribute, kept[name])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=int, default=50, help="parameters")
    parser.add_argument("--rows", type=int, default=64, help="of a batch")
    parser.add_argument("--updates", type=int, default=20, help="of a turn")
    parser.add_argument("--turns", type=int, default=3, help="of each kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="write here (default: the folder for temporary files)")
    args = parser.parse_args(argv)
    import torch

    import unival.plugin  # noqa: F401
    from unival.tasks.snapshot import Snapshot

    torch.set_num_threads(args.threads)
    training = Training(args.millions, args.rows)
    seconds: dict[str, list[float]] = {"none": [], "waiting": [], "beside": []}
    stops: dict[str, list[float]] = {kind: [] for kind in seconds}
    parts: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "checkpoint_last.pt"
        turn(training, 3, path, True)  # the first of everything
        with timed(parts):
            for _ in range(args.turns):
                for kind, found in seconds.items():
                    place = None if kind == "none" else path
                    whole, stop = turn(training, args.updates, place, kind == "beside")
                    found.append(whole)
                    stops[kind].append(stop)
        size = path.stat().st_size
    middle = {kind: statistics.median(found) for kind, found in seconds.items()}
    update = middle["none"] / args.updates
    lost = {kind: middle[kind] - middle["none"] for kind in ("waiting", "beside")}
    stop = {kind: statistics.median(stops[kind]) for kind in lost}
    result = {
        "parameters, millions": args.millions,
        "file, MiB": round(size / 2**20),
        "copy, MiB": round(Snapshot(training.state()).nbytes / 2**20),
        "seconds of an update": round(update, 3),
        "stop, in updates": {kind: round(value / update, 2) for kind, value in stop.items()},
        "stop, beside / waiting": round(stop["beside"] / stop["waiting"], 3),
        "loss, in updates": {kind: round(value / update, 2) for kind, value in lost.items()},
        "loss, beside / waiting": round(lost["beside"] / lost["waiting"], 3),
        "parts, seconds": {name: round(statistics.median(found), 3) for name, found in sorted(parts.items())},
        "turns, seconds": {kind: [round(value, 2) for value in found] for kind, found in seconds.items()},
        "stops, seconds": {kind: [round(value, 2) for value in found] for kind, found in stops.items()},
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
