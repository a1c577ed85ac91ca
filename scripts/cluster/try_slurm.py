"""Job scripts on a real SLURM of one machine: ``bash scripts/cluster/slurm.sh python scripts/cluster/try_slurm.py``.

Small trainings are submitted with ``run_scripts/_launch.sh`` and come to every end that SLURM knows. Prints a line for
each case; exit code 1 when one is not as it should be. ``--only NAME`` runs one of them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from cases import OPTIONS, PATIENCE, Wrong, parse, run  # noqa: E402
from chaos import Run, content, members  # noqa: E402

LAUNCH = str(ROOT / "run_scripts" / "_launch.sh")


def told(*words: str) -> str:
    """Return what one of SLURM's programs prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def until(what: str, found: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait; raise Wrong when it does not come."""
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            raise Wrong(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)


class Job:
    """A training that was submitted with words for sbatch."""

    def __init__(
        self, world: Path, folder: Path, words: str, updates: int = 100_000, **variables: str
    ) -> None:
        self.run = Run(world, folder, updates, 1, OPTIONS)
        self.output = folder.with_suffix(".out")
        marked = {
            "UNIVAL_CHAOS": str(folder),
            "OMP_NUM_THREADS": "1",
            "SUBMIT": f"--output={self.output} {words}",
        }
        said = subprocess.run(
            ["bash", LAUNCH, *self.run.words],
            env={**os.environ, **marked, "GPUS": "1", **variables},
            check=True,
            capture_output=True,
            text=True,
        )
        self.number = said.stdout.split()[-1]

    @property
    def facts(self) -> dict[str, str]:
        """What SLURM knows of the job."""
        return dict(re.findall(r"(\w+)=(\S*)", told("scontrol", "show", "job", self.number)))

    @property
    def state(self) -> str:
        return self.facts["JobState"]

    def reaches(self, update: int) -> None:
        """Wait for an update."""

        def reached() -> bool:
            if self.state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"):
                raise Wrong(f"job {self.number} is {self.state} at update {self.run.logged()}: {self.tail()}")
            return self.run.logged() >= update

        until(f"update {update} of job {self.number} ({self.tail()})", reached)

    def goes_on(self, restarts: int = 1) -> None:
        """Wait until it was put back, runs again, and goes on where it stopped; every update is there once."""
        until(f"job {self.number} comes back", lambda: self.facts["Restarts"] == str(restarts))
        # SLURM lets it wait for two minutes; started within the second of its end, the credential of the first run,
        # which was revoked by the second, would be refused, and with it the job.
        told("scontrol", "update", f"JobId={self.number}", "StartTime=now+3")
        until(f"it saves ({self.tail()})", self.run.saved, 60)
        saved = self.run.saved()
        self.reaches(saved + 3)
        made = [record["update"] for record in self.run.records if record["split"] == "train"]
        if made != list(range(1, len(made) + 1)):
            raise Wrong(f"updates are not 1, 2, 3, ...: saved {saved}, then {made[saved - 2 : saved + 3]}")

    def ends(self, state: str) -> None:
        """Wait for its end, and that nothing is left of it."""
        until(f"{state} (it is {self.state}; {self.tail()})", lambda: self.state == state)
        until(f"no process is left ({members(self.run.folder)})", lambda: not members(self.run.folder), 60)
        if self.run.folder.is_dir() and list(self.run.folder.glob("*part*")):
            raise Wrong("something half-written is left")

    def tail(self) -> str:
        """Return the last line that it wrote."""
        lines = (
            self.output.read_text(encoding="utf-8", errors="replace").split("\n")
            if self.output.is_file()
            else []
        )
        return next((line for line in reversed(lines) if line.strip()), "nothing was written")

    def cancelled(self) -> None:
        """End it."""
        told("scancel", self.number)
        self.ends("CANCELLED")


def signal_requeues(world: Path, folder: Path) -> str:
    """SIGUSR1: it saves, goes back into the queue, goes on at the next update; then scancel ends it for good."""
    job = Job(world, folder, "--cpus-per-task=1")
    job.reaches(3)
    told("scancel", "--batch", "--signal=USR1", job.number)
    job.goes_on()
    job.cancelled()
    return f"saved and requeued, went on to update {job.run.logged()}, cancelled"


def time_limit(world: Path, folder: Path) -> str:
    """The signal before the end of its time."""
    job = Job(world, folder, "--cpus-per-task=1 --time=2 --signal=B:USR1@60")  # SLURM is up to a minute early
    job.goes_on()
    job.cancelled()
    return f"saved before its time was over, went on to update {job.run.logged()}"


def preemption(world: Path, folder: Path) -> str:
    """A job of higher priority takes all nodes."""
    nodes = told("sinfo", "-h", "-p", "low", "-o", "%D")
    job = Job(world, folder, "--partition=low --exclusive --nodelist=home1")
    job.reaches(3)
    other = ["--parsable", "--partition=high", "--exclusive", f"--nodes={nodes}", "--output=/dev/null"]
    urgent = told("sbatch", *other, "--wrap", "sleep 1")
    job.goes_on()
    if "JobState=COMPLETED" not in told("scontrol", "show", "job", urgent):
        raise Wrong("the other job did not run")
    job.cancelled()
    return f"saved and made room, went on to update {job.run.logged()}"


def several_nodes(world: Path, folder: Path) -> str:
    """Two nodes with two processes each, where sbatch is asked for several tasks a node, as a template may."""
    job = Job(world, folder, "--nodes=2 --ntasks-per-node=2 --cpus-per-task=1", GPUS="2", MASTER_ADDR="")
    job.reaches(3)
    ranks = sorted(re.findall(r"^\s+(\d) \S+ +\d+ +\S+$", job.output.read_text(), re.MULTILINE))
    if ranks != ["0", "1", "2", "3"]:
        raise Wrong(f"ranks {ranks}")
    told("scancel", "--batch", "--signal=USR1", job.number)
    job.goes_on()
    job.cancelled()
    return f"four ranks on two nodes saved, requeued, went on to update {job.run.logged()}"


def failing_rank(world: Path, folder: Path) -> str:
    """A rank that is killed ends its job, which does not come back."""
    job = Job(world, folder, "--cpus-per-task=2", GPUS="2")
    job.reaches(3)
    for pid in members(folder):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if b"RANK=1" in environment:
            os.kill(pid, signal.SIGKILL)
            break
    job.ends("FAILED")
    facts, text = job.facts, job.output.read_text(encoding="utf-8", errors="replace")
    if facts["ExitCode"] != "137:0" or facts["Restarts"] != "0" or "killed by SIGKILL" not in text:
        raise Wrong(f"exit code {facts['ExitCode']}, {facts['Restarts']} restarts, {job.tail()}")
    return "the job failed with 137, the rank is named, no process is left"


def scancel(world: Path, folder: Path) -> str:
    """scancel in the start and in the middle of a training."""
    first = Job(world, folder, "--cpus-per-task=1")
    until("it runs", lambda: first.state == "RUNNING")
    time.sleep(2)
    first.cancelled()
    second = Job(world, folder, "--cpus-per-task=1")
    second.reaches(3)
    second.cancelled()
    content(folder / "checkpoint_last.pt")
    return f"ended in the start and after update {second.run.logged()}; update {second.run.saved()} is saved"


def chain(world: Path, folder: Path) -> str:
    """Two finetunings as an array, and their merging, which waits for both."""
    folder.mkdir()
    start = Run(world, folder / "start", 2, 1, OPTIONS)
    subprocess.run(
        [sys.executable, "-m", "unival", *start.words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT
    )
    recipe = {
        "out": str(folder / "out"),
        "start": str(start.folder / "checkpoint_last.pt"),
        "tasks": {name: str(start.recipe) for name in ("one", "other")},
        "kinds": ["vanilla"],
        "checkpoint": "checkpoint_last.pt",
        "options": {"max_update": 3, "disable_validation": True, "num_workers": 0},
    }
    file = folder / "chain.yaml"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    script = str(ROOT / "run_scripts" / "merge" / "chain_slurm.sh")
    said = told("bash", script, str(file), "--cpus-per-task=1", f"--output={folder}/%A_%a.out")
    jobs = re.findall(r"job (\d+)", said)
    waits = [re.findall(r"Dependency=(\S+)", told("scontrol", "show", "job", job))[0] for job in jobs]
    if len(jobs) != 2 or waits[0] != "(null)" or jobs[0] not in waits[1]:
        raise Wrong(f"{said}; {waits}")

    def states() -> set[str]:
        return set(
            re.findall(r"JobState=(\w+)", "".join(told("scontrol", "show", "job", job) for job in jobs))
        )

    until("all are completed", lambda: states() == {"COMPLETED"} or states() & {"FAILED", "CANCELLED"})
    merged = list((folder / "out").rglob("merged/*"))
    if states() != {"COMPLETED"} or not merged:
        raise Wrong(f"{states()}, {merged}")
    return f"arrays {', '.join(jobs)} completed one after the other; {merged[0].name} is merged"


CASES = (signal_requeues, time_limit, preemption, several_nodes, failing_rank, scancel, chain)


def main(argv: Sequence[str] | None = None) -> int:
    cases = parse(__doc__, CASES, argv)
    if not os.environ.get("SLURM_CONF"):
        print("error: no SLURM_CONF: start this with scripts/cluster/slurm.sh", file=sys.stderr)
        return 2
    return run(cases, lambda: subprocess.run(["scancel", "--user=root"], check=False))


if __name__ == "__main__":
    sys.exit(main())
