"""What becomes of a run when a cable, a host or a name fails:
``HOSTS=3 bash scripts/cluster/hosts.sh python scripts/cluster/try_hosts.py``.

Small trainings, a launcher on each host. Prints a line for each case; exit code 1 when one is not as it should be:
every rank that lives ends within a minute, with one line that names the missing one. ``--only NAME`` runs one of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from cases import OPTIONS, PATIENCE, Case, Wrong, parse, run  # noqa: E402
from chaos import Run, members  # noqa: E402

LAUNCH = str(ROOT / "run_scripts" / "_launch.sh")
MINUTE = 60.0
HOSTS = int(os.environ.get("UNIVAL_HOSTS", "0"))


class Training:
    """A run with one process on each of some hosts."""

    def __init__(
        self,
        world: Path,
        folder: Path,
        hosts: int,
        *options: str,
        updates: int = 100_000,
        address: str = "host1",
    ) -> None:
        self.run = Run(world, folder, updates, 1, (*OPTIONS, *options))
        self.files = [folder.with_suffix(f".host{k}") for k in range(1, hosts + 1)]
        self.started = []
        for k, file in enumerate(self.files):
            variables = {
                "NNODES": hosts,
                "NODE_RANK": k,
                "MASTER_ADDR": address,
                "MASTER_PORT": 29500,
                "GPUS": 1,
            }
            environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
            environment |= {"UNIVAL_CHAOS": str(folder), "OMP_NUM_THREADS": "1"}
            with open(file, "wb") as opened:
                words = ["on", f"host{k + 1}", "bash", LAUNCH, *self.run.words]
                self.started.append(subprocess.Popen(words, env=environment, stdout=opened, stderr=opened))

    def reaches(self, update: int) -> None:
        """Wait for an update."""
        deadline = time.monotonic() + PATIENCE
        while self.run.logged() < update:
            if time.monotonic() > deadline or any(one.poll() is not None for one in self.started):
                raise Wrong(f"update {update} never came: {self.said(0)[-3:]}")
            time.sleep(0.1)

    def ends(self, hosts: Sequence[int], seconds: float = MINUTE) -> float:
        """Wait for the launchers of some hosts (from 0 on); returns how long the last one took."""
        begun = time.monotonic()
        for k in hosts:
            try:
                self.started[k].wait(max(0.1, begun + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Wrong(f"host{k + 1} goes on after {seconds:.0f} s: {self.said(k)[-3:]}") from None
        return time.monotonic() - begun

    def said(self, host: int) -> list[str]:
        """Return the lines that a host's ranks and launcher wrote."""
        return self.files[host].read_text(encoding="utf-8", errors="replace").splitlines()

    def names(self, host: int, pattern: str) -> None:
        """One line of an error, which names the missing one; no traceback."""
        errors = [line for line in self.said(host) if "error: " in line]
        # the launcher repeats the last lines of the rank that failed first
        said = {line.split("error: ", 1)[1] for line in errors}
        if (
            len(said) != 1
            or not re.search(pattern, errors[0])
            or any("Traceback" in line for line in self.said(host))
        ):
            raise Wrong(f"host{host + 1} does not say /{pattern}/ in one line: {self.said(host)[-8:]}")

    def clear(self) -> None:
        """End what is left."""
        for one in self.started:
            if one.poll() is None:
                one.terminate()
        for one in self.started:
            try:
                one.wait(90)
            except subprocess.TimeoutExpired:
                one.kill()
        if members(self.run.folder):
            raise Wrong(f"processes are left: {members(self.run.folder)}")


def cut_link(world: Path, folder: Path) -> str:
    """A cable is taken out: both sides end, each names the other."""
    training = Training(world, folder, 2)
    try:
        training.reaches(3)
        subprocess.run(["cut", "host2"], check=True)
        took = training.ends((0, 1))
        training.names(0, r"rank 1 \(host2, pid \d+\) is gone")
        training.names(1, r"rank 0 \(host1, pid \d+\) is gone")
    finally:
        subprocess.run(["mend", "host2"], check=True)
        training.clear()
    return f"both ends said who is missing and ended within {took:.0f} s"


def dead_host(world: Path, folder: Path) -> str:
    """A host without power: all others name it."""
    training = Training(world, folder, HOSTS)
    try:
        training.reaches(3)
        subprocess.run(["die", f"host{HOSTS}"], check=True)
        others = range(HOSTS - 1)
        took = training.ends(others)
        for host in others:
            training.names(host, rf"rank {HOSTS - 1} \(host{HOSTS}, pid \d+\) is gone")
    finally:
        subprocess.run(["mend", f"host{HOSTS}"], check=True)
        training.clear()
    return f"{HOSTS - 1} other rank(s) named it and ended within {took:.0f} s"


def slow_link(world: Path, folder: Path) -> str:
    """A link of 20 Mbit/s: slow, and nothing else."""
    if shutil.which("tc") is None:
        return "skipped: tc is missing"
    training = Training(world, folder, 2, updates=8)
    try:
        training.reaches(2)
        subprocess.run(["slow", "host2", "20mbit"], check=True)
        training.ends((0, 1), PATIENCE)
        if [one.returncode for one in training.started] != [0, 0] or training.run.logged() != 8:
            raise Wrong(f"exit codes {[one.returncode for one in training.started]}: {training.said(0)[-3:]}")
    finally:
        training.clear()
    return "all 8 updates were made"


def unknown_name(world: Path, folder: Path) -> str:
    """MASTER_ADDR is a name that nobody knows."""
    training = Training(world, folder, 2, address="nowhere.invalid")
    try:
        took = training.ends((0, 1), PATIENCE)
        for host in (0, 1):
            training.names(host, r"'nowhere\.invalid' is no host that host\d knows")
    finally:
        training.clear()
    return f"both ranks ended with the name in one line, {took:.0f} s after the start"


CASES: tuple[Case, ...] = (cut_link, dead_host, slow_link, unknown_name)


def main(argv: Sequence[str] | None = None) -> int:
    cases = parse(__doc__, CASES, argv)
    if HOSTS < 2:
        print("error: two hosts are needed: start this with scripts/cluster/hosts.sh", file=sys.stderr)
        return 2
    return run(cases)


if __name__ == "__main__":
    sys.exit(main())
