"""An hour of training or of server load, looked at from outside: ``python benchmarks/soak.py training --minutes 60``.

``training`` is a small captioning run with two data workers, short epochs and a validation every 100 updates;
``server`` is ``unival serve`` under three clients, a fifth of whose requests are broken, while others send half a
request. Memory (the processes' share of what is not read from files), open descriptors and threads of every process
are written to ``samples.csv`` every ten seconds, drawn to ``soak.png`` and judged by their slope (the median of all
pairwise ones, Theil and Sen) after the first sixth of the time: exit code 1 when anything grows.
``draw FOLDER... --out FILE`` draws several runs as one picture.
"""

from __future__ import annotations

import argparse
import collections
import csv
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from processes import tree

ROOT = Path(__file__).resolve().parents[1]
EVERY = 10.0  # seconds between two samples
COLUMNS = ("seconds", "who", "processes", "memory", "descriptors", "threads", "updates")
# growth within an hour that is called flat: MB, descriptors, threads
ALLOWED = {"memory": 10.0, "descriptors": 1.0, "threads": 1.0}


def measure(pid: int) -> dict[str, float] | None:
    """Return MB, open descriptors and threads of one process, None when it is gone."""
    place = Path(f"/proc/{pid}")
    try:
        rollup, status = (place / "smaps_rollup").read_text(), (place / "status").read_text()
        descriptors = len(os.listdir(place / "fd"))
    except OSError:
        return None
    lines = dict(
        line.split(":", 1) for line in (*rollup.splitlines()[1:], *status.splitlines()) if ":" in line
    )
    if "Pss_Anon" not in lines:
        return None
    return {
        # not what is read from files: that is shared with whatever else runs on the machine
        "memory": sum(int(lines[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) / 1024,
        "descriptors": descriptors,
        "threads": int(lines["Threads"]),
    }


def watch(pid: int, minutes: float, file: Path, updates: Callable[[], int]) -> None:
    """Sample a program and its children until the time is over or it ends."""
    began = time.monotonic()
    with open(file, "w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS)
        writer.writeheader()
        for number in itertools.count(1):
            members = tree(pid)
            for who, pids in (("program", members[:1]), ("workers", members[1:])):
                known = [found for found in map(measure, pids) if found is not None]
                if known:
                    sums = {name: round(sum(one[name] for one in known), 2) for name in ALLOWED}
                    seconds = round(time.monotonic() - began, 1)
                    about = {"seconds": seconds, "who": who, "processes": len(known), "updates": updates()}
                    writer.writerow({**about, **sums})
            opened.flush()
            due = began + number * EVERY
            while time.monotonic() < due:
                if not Path(f"/proc/{pid}/stat").exists() or b") Z" in Path(f"/proc/{pid}/stat").read_bytes():
                    return
                time.sleep(0.2)
            if time.monotonic() - began > minutes * 60:
                return


def read(file: Path) -> dict[str, list[dict[str, float]]]:
    """Return the samples of a file by who was measured."""
    found: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    with open(file, encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            found[row["who"]].append({name: float(row[name]) for name in COLUMNS if name != "who"})
    # workers come and go with the epochs: only samples of all of them can be compared
    for who, rows in found.items():
        usual = np.median([row["processes"] for row in rows])
        found[who] = [row for row in rows if row["processes"] == usual]
    return found


def slope(rows: Sequence[dict[str, float]], name: str) -> float:
    """Return the growth of a value in an hour, after the first sixth of the time."""
    last = max(row["seconds"] for row in rows)
    kept = [(row["seconds"] / 3600, row[name]) for row in rows if row["seconds"] >= last / 6]
    times, values = np.array(kept).T
    first, second = np.triu_indices(len(times), 1)
    apart = times[second] > times[first]
    if not apart.any():
        return 0.0
    return float(
        np.median(((values[second] - values[first]) / (times[second] - times[first] + ~apart))[apart])
    )


def highest(rows: Sequence[dict[str, float]], name: str) -> list[dict[str, float]]:
    """Return the samples with the highest value of each twelfth of the time.

    Data workers hold descriptors of the batches that wait, a number that rises and falls with every epoch: what grows
    is how high it rises.
    """
    length = max(row["seconds"] for row in rows) / 12
    parts: dict[int, list[dict[str, float]]] = collections.defaultdict(list)
    for row in rows:
        parts[int(row["seconds"] / length)].append(row)
    return [max(part, key=lambda row: row[name]) for part in parts.values()]


def judge(file: Path) -> dict[str, dict[str, Any]]:
    """Return, for the program and its workers, each value at its start and end and its growth in an hour."""
    verdict: dict[str, dict[str, Any]] = {}
    for who, rows in read(file).items():
        settled = [row for row in rows if row["seconds"] >= rows[-1]["seconds"] / 6] or rows
        tenth = max(1, len(settled) // 10)
        for name, allowed in ALLOWED.items():
            grown = slope(highest(rows, name) if name == "descriptors" else rows, name)
            verdict[f"{who}: {name}"] = {
                "first": round(float(np.median([row[name] for row in settled[:tenth]])), 1),
                "last": round(float(np.median([row[name] for row in settled[-tenth:]])), 1),
                "in an hour": round(grown, 2),
                "flat": grown <= allowed,
            }
    return verdict


def draw(folders: Sequence[Path], out: Path) -> None:
    """Draw memory, descriptors and threads of one run a row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(folders), len(ALLOWED), figsize=(10, 2.6 * len(folders)), squeeze=False, layout="constrained"
    )
    for line, folder in zip(axes, folders, strict=True):
        samples = read(folder / "samples.csv")
        for panel, (name, unit) in zip(
            line, (("memory", "MB"), ("descriptors", ""), ("threads", "")), strict=True
        ):
            for who, rows in samples.items():
                label = f"{who} ({rows[0]['processes']:.0f})"
                panel.plot(
                    [r["seconds"] / 60 for r in rows], [r[name] for r in rows], label=label, linewidth=1
                )
            panel.set_ylim(bottom=0)
            panel.set_title(f"{folder.name}: {name}" + (f" ({unit})" if unit else ""), fontsize=9)
            panel.set_xlabel("minutes", fontsize=8)
            panel.tick_params(labelsize=8)
            panel.grid(alpha=0.3)
        line[0].legend(fontsize=8)
    figure.savefig(out, dpi=110)


def training(folder: Path, minutes: float) -> dict[str, Any]:
    """Train, be watched, be stopped; returns what the run did."""
    from chaos import Run

    from unival.datatools.world import render

    world = folder / "world"
    render(world, seed=1, images=300, clips=8, sounds=8, image_size=32, video_size=32, vocabulary_size=400)
    run = Run(world, folder / "run", 10_000_000, 1)
    recipe = json.loads(run.recipe.read_text(encoding="utf-8"))
    recipe["validation"]["validate_interval_updates"] = 100
    recipe["checkpoint"]["save_interval_updates"] = 500
    recipe["run"] |= {"num_workers": 2, "log_interval": 10}
    run.recipe.write_text(json.dumps(recipe), encoding="utf-8")
    words = [sys.executable, "-m", "unival", *run.words]
    with open(run.log, "wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as program:
        try:
            watch(program.pid, minutes, folder / "samples.csv", run.logged)
        finally:
            program.terminate()
    records = run.records
    return {
        "exit code (75: asked to stop)": program.returncode,
        "updates": run.logged(),
        "validations": sum(record["split"] == "valid" for record in records),
        "epochs": max((record.get("epoch", 0) for record in records), default=0),
    }


def half_requests(address: str, over: threading.Event) -> None:
    """Send half heads and half bodies, one every second, and wait with each for what comes."""
    host, _, port = address.removeprefix("http://").partition(":")
    halves = (
        b"",
        b"POST /caption HTT",
        b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
    )
    waiting: collections.deque[socket.socket] = collections.deque()
    for half in itertools.cycle(halves):
        if over.wait(1):
            break
        try:
            waiting.append(socket.create_connection((host, int(port)), timeout=5))
            waiting[-1].sendall(half)
        except OSError:
            continue
        if len(waiting) > 20:
            waiting.popleft().close()
    for connection in waiting:
        connection.close()


def server(folder: Path, minutes: float) -> dict[str, Any]:
    """Serve, be watched under load; returns what the clients got."""
    from serve_load import Client, material, started

    checkpoint, expected, bad = material(folder)
    over = threading.Event()
    with started(checkpoint, "--queue", "4") as (program, address):
        client = Client(address, expected)

        def ask(number: int) -> None:
            choice = random.Random(number)
            while not over.wait(choice.uniform(0.2, 0.6)):
                if choice.random() < 0.2:
                    client.ask(("caption", choice.choice(bad), True))
                else:
                    client.ask((*choice.choice(sorted(expected)), False))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        threads.append(threading.Thread(target=half_requests, args=(address, over)))
        for thread in threads:
            thread.start()
        try:
            watch(program.pid, minutes, folder / "samples.csv", lambda: client.counts.total())
        finally:
            over.set()
            for thread in threads:
                thread.join()
    return {"exit code": program.returncode, **dict(sorted(client.counts.items()))}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("training", "server", "draw"))
    parser.add_argument("folders", nargs="*", type=Path, help="of draw: folders with samples.csv")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--folder", type=Path, help="samples, picture and the run itself stay here")
    parser.add_argument("--out", type=Path, default=Path("soak.png"), help="of draw")
    args = parser.parse_args(argv)
    if args.what == "draw":
        draw(args.folders, args.out)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        did = {"training": training, "server": server}[args.what](folder, args.minutes)
        verdict = judge(folder / "samples.csv")
        draw([folder], folder / "soak.png")
    print(json.dumps({args.what: did, **verdict}, indent=1))
    return int(not all(one["flat"] for one in verdict.values()) or "WRONG" in did)


if __name__ == "__main__":
    sys.exit(main())
