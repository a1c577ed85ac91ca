"""Trainings on a machine that is short of something: ``python benchmarks/odd_machines.py``.

``disk``: a file system that is too small, and one that fills up while ``--save-dir-fallback`` names another place;
``shm``: hardly any shared memory for data workers; ``descriptors``: 48 of them; ``clock``: the time of day jumps by
days (libfaketime). Prints a line for each; exit code 1 when one is not as it should be. Needs root: file systems are
mounted where only this program sees them.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from chaos import Run, compare, ended

UPDATES = 12
APART = "UNIVAL_OWN_MOUNTS"  # set once this program has mounts of its own
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class Wrong(Exception):
    """What is not as it should be."""


def right(found: object, what: str, run: Run) -> None:
    """Raise Wrong unless ``found``."""
    if not found:
        raise Wrong(f"{what}: {run.log.read_text(encoding='utf-8', errors='replace').splitlines()[-3:]}")


def refused(run: Run, code: int | None, text: str) -> str:
    """Return the one line of a run that ended with exit code 2 and left nothing unfinished."""
    lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    right(
        code == 2 and len(errors) == 1 and text in errors[0],
        f"code {code}, '{text}' is not said in one line",
        run,
    )
    right("Traceback" not in "\n".join(lines), "a traceback", run)
    left = [path.name for path in run.folder.glob("*") if "part" in path.name or path.name.endswith(".lock")]
    right(not left, f"left {left}", run)
    return errors[0]


@contextmanager
def mounted(place: Path, size: int) -> Iterator[None]:
    """A file system of ``size`` bytes at a place."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def disk(world: Path, folder: Path, whole: Run) -> str:
    """Too small from the beginning; full after a while."""
    size = (whole.folder / "checkpoint_last.pt").stat().st_size
    small, full, spare = folder / "small", folder / "full", folder / "spare"
    with mounted(small, size // 2):
        run = Run(world, small / "run", UPDATES, 1)
        run.log = folder / "small.log"
        refused(run, ended(run.start(), 600), "free")
        right(not run.logged(), "it trained before it saw that there is no room", run)
    with mounted(full, 6 * size):
        options = [f"--save-dir-fallback={spare}", f"--tensorboard-logdir={full / 'board'}"]
        run = Run(world, full / "run", UPDATES, 1, options)
        run.log = folder / "full.log"
        pid, filler = run.start(), full / "filler"
        while not (run.folder / "checkpoint_last.pt").is_file():
            right(ended(pid, 0.01) is None, "it ended before a checkpoint was there", run)
        with open(filler, "wb", buffering=0) as file:
            # the run itself writes meanwhile
            while (room := shutil.disk_usage(full).free - size // 2) > 0:
                with suppress(OSError):
                    file.write(bytes(min(room, 1 << 20)))
        line = refused(run, ended(pid, 600), "is saved as")
        first = run.saved()
        right(
            (spare / "checkpoint_last.pt").is_file() and first,
            f"no checkpoint in the other place: {line}",
            run,
        )
        filler.unlink()
        right(ended(run.start(), 600) == 0, "it did not go on", run)
        differs = compare(whole, run)
        right(not differs, f"it differs in {differs}", run)
    return f"refused before the first step; when full after update {first} saved elsewhere, then ended as undisturbed"


def shm(world: Path, folder: Path, whole: Run) -> str:
    """64 kB and 1 MB of shared memory, two data workers."""
    for size in (64 << 10, 1 << 20):
        with mounted(Path("/dev/shm"), size):
            run = Run(world, folder / f"shm{size}", UPDATES, 1, ["--num-workers=2", "--batch-size=8"])
            begun = time.monotonic()
            code = ended(run.start(), 300)
            if code == 0:
                continue  # its batches had room
            refused(run, code, "shared memory")
            took = time.monotonic() - begun
    return f"one line with the remedy, the last within {took:.0f} s"


def descriptors(world: Path, folder: Path, whole: Run) -> str:
    """48 descriptors, two data workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    run = Run(world, folder / "descriptors", UPDATES, 1, ["--num-workers=2"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    try:
        pid = run.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return refused(run, ended(pid, 300), "open files")[:100]


def clock(world: Path, folder: Path, whole: Run) -> str:
    """The time of day jumps by days, to and fro."""
    found = list(Path("/").glob(FAKETIME.lstrip("/")))
    if not found:
        return "skipped: no libfaketime"
    time_of_day = folder / "now"
    time_of_day.write_text("+0d")
    variables = {"FAKETIME_TIMESTAMP_FILE": str(time_of_day), "FAKETIME_NO_CACHE": "1"}
    variables |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "LD_PRELOAD": str(found[0]), "OMP_NUM_THREADS": "1"}
    run = Run(world, folder / "clock", UPDATES, 1, ["--hang-timeout=120"])
    jumps = 0
    with open(run.log, "wb") as log:
        words = [sys.executable, "-m", "unival", *run.words]
        program = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **variables})
        while program.poll() is None:
            seen = run.logged()
            if seen > jumps:
                jumps = seen
                time_of_day.write_text(("+3d", "-2d", "+400d", "-1d")[jumps % 4])
            time.sleep(0.02)
    right(program.returncode == 0 and jumps > 2, f"code {program.returncode}, {jumps} jumps", run)
    differs = compare(whole, run)
    right(not differs, f"it differs in {differs}", run)
    return f"the clock jumped in {jumps} of {UPDATES} updates; the end is that of an undisturbed run"


CASES: tuple[Callable[[Path, Path, Run], str], ...] = (disk, shm, descriptors, clock)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[case.__name__ for case in CASES])
    args = parser.parse_args(argv)
    if not os.environ.get(APART):
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        return subprocess.run(words, env={**os.environ, APART: "1"}, check=False).returncode
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)  # no pool that a fork would leave behind
    import torch._dynamo  # optimizers import it

    import unival.plugin  # noqa: F401  (and the engine: before the forks, which then start at once)
    from unival.datatools.world import render

    wrong = 0
    with tempfile.TemporaryDirectory(prefix="unival-odd-") as scratch:
        folder = Path(scratch)
        world = folder / "world"
        render(world, seed=1, images=60, clips=8, sounds=8, image_size=32, video_size=32, vocabulary_size=400)
        whole = Run(world, folder / "whole", UPDATES, 1)
        code = ended(whole.start(), 600)
        assert code == 0, f"the undisturbed run ended with {code}: {whole.log.read_text()[-500:]}"
        for case in CASES:
            if args.only not in (None, case.__name__):
                continue
            try:
                outcome = case(world, folder, whole)
            except Wrong as error:
                outcome, wrong = f"WRONG: {error}", wrong + 1
            print(f"{case.__name__:12} {outcome}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
