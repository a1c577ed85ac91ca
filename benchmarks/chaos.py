"""Kills trainings and looks at what is left: ``python benchmarks/chaos.py --kills 20 --processes 1``.

A small run on the sample world is ended again and again at random moments (in starts, updates, validations, saves) by
random signals to random targets (launcher, rank, data worker) and started again by the same command. After each kill:
is any process of the run left, can the checkpoint be read, how many updates are lost, is anything unfinished left in
the folder? At the end of each run: are weights, optimizer, average, losses and scores bit for bit those of a run that
nobody disturbed? ``--elastic N`` changes the number of processes N times instead, ``--epochs N`` counts open
descriptors over short epochs, ``--writers`` starts two runs in one folder.

With one process runs are forked from a process that has imported everything, which saves the seconds of a start; with
two they go through ``run_scripts/_launch.sh`` as a user's do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import children

ROOT = Path(__file__).resolve().parents[1]
EVERY = 3  # updates between two checkpoints
CLOCK = {"data_wait"}  # what a record says of time, which differs between any two runs
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
MODEL = {
    "encoder_embed_dim": 32,
    "decoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "decoder_ffn_embed_dim": 64,
}
MODEL |= {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}


class Run:
    """One training of ``updates`` updates in ``folder``, which may be started many times."""

    def __init__(
        self, world: Path, folder: Path, updates: int, processes: int, options: Sequence[str] = ()
    ) -> None:
        self.world, self.folder, self.processes = world, folder, processes
        tables = world / "tables"
        recipe = {
            "task": "caption",
            "arch": "unival_tiny",
            "criterion": "adjust_label_smoothed_cross_entropy",
            "optimizer": "adam",
            "lr_scheduler": "polynomial_decay",
            "data": {"train": str(tables / "caption_train.tsv"), "valid": str(tables / "caption_val.tsv")},
            "model": {**MODEL, "image_encoder_name": "resnet", "resnet_type": "resnet18", "dropout": 0.1},
            "inputs": {"bpe_dir": str(world / "vocabulary"), "image_dir": str(world), "patch_image_size": 32},
            "optimization": {
                "lr": 1e-3,
                "max_update": updates,
                "batch_size": 8,
                "warmup_ratio": 0.1,
                "seed": 3,
            },
            "validation": {"batch_size_valid": 8, "eval_args": {"beam": 1, "max_len_b": 8}},
            "checkpoint": {
                "save_dir": str(folder),
                "save_interval_updates": EVERY,
                "keep_interval_updates": 1,
            },
            "run": {
                "networks_from_scratch": True,
                "num_workers": 1,
                "log_interval": 1,
                "log_format": "simple",
                "no_epoch_checkpoints": True,
            },
        }
        recipe["optimization"] |= {
            "store_ema": True,
            "ema_fp32": True,
            "ema_decay": 0.9,
            "total_num_update": updates,
        }
        self.recipe = folder.with_suffix(".yaml")
        self.recipe.write_text(json.dumps(recipe), encoding="utf-8")
        self.words = ["train", str(self.recipe), *options]
        self.log = folder.with_suffix(".log")

    def start(self) -> int:
        """Start it in a process group of its own; return the first process."""
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        for number in SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL)  # a shell or nohup may have this program ignore some
        for number in (1, 2):
            os.dup2(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), number)
        os.environ |= {"UNIVAL_CHAOS": str(self.folder), "OMP_NUM_THREADS": "1", "GPUS": str(self.processes)}
        if self.processes > 1:
            script = ROOT / "run_scripts" / "_launch.sh"
            os.execvp("bash", ["bash", str(script), *self.words])
        from unival.cli import main

        code = 70
        try:
            code = main(self.words)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            os._exit(code)

    @property
    def records(self) -> list[dict[str, Any]]:
        path = self.folder / "train_log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:  # torn by the kill; dropped by the next start
                continue
        return found

    def logged(self) -> int:
        return max((record["update"] for record in self.records), default=0)

    def saved(self) -> int:
        """Updates in the last checkpoint, 0 without one. Raises when it cannot be read."""
        path = self.folder / "checkpoint_last.pt"
        return int(content(path)["optimizer_history"][-1]["num_updates"]) if path.is_file() else 0


def content(path: Path) -> dict[str, Any]:
    import torch

    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def family(first: int) -> dict[str, list[int]]:
    """Living processes of a run: launcher, ranks and workers."""
    below = children()
    alive = Path(f"/proc/{first}/cmdline").exists() and first
    launched = alive and b"unival.launch" in _read(Path(f"/proc/{first}/cmdline"))
    ranks = below[first] if launched else [first] * bool(alive)
    workers = [worker for rank in ranks for worker in below[rank]]
    return {"launcher": [first] if launched else [], "rank": ranks, "worker": workers}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def members(folder: Path) -> list[int]:
    """Living processes that a run in ``folder`` has started, whoever their parents are now."""
    mark = f"UNIVAL_CHAOS={folder}".encode()
    session = [path for path in Path("/proc").iterdir() if path.name.isdecimal()]
    named = [path for path in session if mark in _read(path / "environ").split(b"\0")]
    return [int(path.name) for path in named if b"\nState:\tZ" not in _read(path / "status")]


def ended(pid: int, seconds: float) -> int | None:
    """Exit code of a child, None when it lives on."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def moment(run: Run, pid: int, choice: random.Random) -> str:
    """Wait for a random moment of the run; return its name."""
    kind = choice.choice(["start", "update", "update", "save", "validation"])
    begun = run.logged()
    if kind == "start":
        time.sleep(choice.uniform(0, 3))
        return kind
    goal = begun + choice.randint(1, 6)
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and run.logged() < goal:
        time.sleep(0.01)
    if kind == "update":
        time.sleep(choice.uniform(0, 0.2))
    for _ in range(400):
        if kind == "save" and any("part" in path.name for path in run.folder.iterdir()):
            return kind
        if kind == "validation" and run.logged() % EVERY == 0:
            return kind
        if kind == "update":
            return kind
        time.sleep(0.005)
    return "update"


def equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def timeless(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without what no two runs have in common."""
    return [{name: value for name, value in record.items() if name not in CLOCK} for record in records]


def compare(whole: Run, parts: Run) -> list[str]:
    """What of a disturbed run differs from an undisturbed one."""
    undisturbed, disturbed = timeless(whole.records), timeless(parts.records)
    missing = [record for record in undisturbed if record not in disturbed]
    same = disturbed == [record for record in undisturbed if record not in missing]
    # a validation that a stop interrupts is not made up for, and may have been the best one
    interrupted = all(record["split"] == "valid" for record in missing)
    found = [] if same and interrupted else ["log"]
    one, other = (content(run.folder / "checkpoint_last.pt") for run in (whole, parts))
    for name in ("model", "last_optimizer_state"):
        if not equal(one[name], other[name]):
            found.append(name)
    for name in ("ema", "ema_fp32_params", "train_iterator", *([] if missing else ["best", "patience"])):
        if not equal(one["extra_state"].get(name), other["extra_state"].get(name)):
            found.append(name)
    return found


def kill(world: Path, folder: Path, kills: int, processes: int, updates: int, seed: int) -> dict[str, Any]:
    """Disturb runs until ``kills`` signals were sent."""
    whole = Run(world, folder / "whole", updates, processes)
    code = ended(whole.start(), 3600)
    assert code == 0, f"the undisturbed run ended with {code}: {whole.log.read_text()[-500:]}"
    choice, outcome = random.Random(seed), Counter[str]()
    done, number, lost, slowest, problems = 0, 0, [], 0.0, []
    while done < kills:
        number += 1
        run = Run(world, folder / f"run{number}", updates, processes)
        while True:
            pid = run.start()
            what = moment(run, pid, choice) if done < kills else "undisturbed"
            targets = {kind: found for kind, found in family(pid).items() if found}
            code = ended(pid, 0) if done < kills else ended(pid, 3600)
            if code is None and targets and done < kills:
                kind = choice.choice(sorted(targets))
                victim, sent = choice.choice(targets[kind]), choice.choice(SIGNALS)
                before, started = run.logged(), time.monotonic()
                try:
                    os.kill(victim, sent)
                except ProcessLookupError:
                    kind = "gone"
                done += 1
                outcome[f"{sent.name} to {kind} in {what}"] += 1
                patient = kind in ("worker", "gone")  # a worker is replaced, and the run goes on
                code = ended(pid, 3600 if patient else 120)
                slowest = max(slowest, 0.0 if patient else time.monotonic() - started)
                if code is None:
                    problems.append(f"hang after {sent.name} to {kind} in {what}")
                    os.killpg(pid, signal.SIGKILL)
                    ended(pid, 10)
                lost.append(max(0, before - run.saved()) if code != 0 else 0)
                time.sleep(0.5)
                left = members(run.folder)
                deadline = time.monotonic() + 90
                while left and time.monotonic() < deadline:
                    time.sleep(0.2)
                    left = members(run.folder)
                if left:
                    problems.append(f"left after {sent.name} to {kind} in {what}: {left}")
                    for process in left:
                        os.kill(process, signal.SIGKILL)
                print(
                    f"{done:>4} {sent.name:8} to {kind:8} in {what:10} code {code}, {lost[-1]} lost",
                    flush=True,
                )
            elif code is None:
                code = ended(pid, 3600)
            if code == 0:
                break
        differs = compare(whole, run)
        problems += [f"run {number} differs in {', '.join(differs)}"] if differs else []
        rest = [
            p.name for p in run.folder.iterdir() if "part" in p.name or p.name.endswith((".tmp", ".lock"))
        ]
        problems += [f"run {number} left {rest}"] if rest else []
        print(f"run {number}: {differs or 'equal to the undisturbed one'}", flush=True)
    return {
        "kills": done,
        "processes": processes,
        "runs": number,
        "lost updates, most": max(lost, default=0),
        "seconds to the end, most": round(slowest, 1),
        "problems": problems,
        "outcome": dict(outcome),
    }


def elastic(world: Path, folder: Path, changes: int, updates: int, seed: int) -> dict[str, Any]:
    """Go on with 1, 2 or 3 processes; the losses must be those of one process (to the digits of the log)."""
    fixed = ["--dropout=0.1", "--freeze-batchnorm", "--batch-size=4", "--update-freq=2", "--num-workers=0"]
    fixed += ["--disable-validation"]
    whole = Run(world, folder / "elastic_whole", updates, 1, fixed)
    assert ended(whole.start(), 3600) == 0, whole.log
    choice, worlds = random.Random(seed), []
    parts = None
    for step in range(changes + 1):
        size = 1 if not step else choice.choice([n for n in (1, 2, 3) if n != worlds[-1]])
        worlds.append(size)
        stop = updates if step == changes else updates * (step + 1) // (changes + 1)
        parts = Run(world, folder / "elastic_parts", updates, 1, [*fixed, f"--max-update={stop}"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = []
        for rank in range(size):
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            ranks.append(parts.start())
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]
        codes = [ended(pid, 3600) for pid in ranks]
        assert not any(codes), f"{codes}: {parts.log}"
        print(f"{stop:>4} updates, now with {size} process(es)", flush=True)
    assert parts is not None
    losses = [[r["loss"] for r in run.records if r["split"] == "train"] for run in (whole, parts)]
    gap = max(abs(a - b) for a, b in zip(*losses, strict=True))
    rows = [
        content(run.folder / "checkpoint_last.pt")["extra_state"]["train_iterator"]["rows"]
        for run in (whole, parts)
    ]
    return {
        "processes": worlds,
        "updates": updates,
        "largest difference of a loss": round(gap, 6),
        "rows": rows,
    }


def descriptors(world: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """Open descriptors of a run with short epochs and two workers."""
    options = [
        f"--max-epoch={epochs}",
        "--max-update=0",
        "--num-workers=2",
        "--no-save",
        "--disable-validation",
    ]
    run = Run(world, folder / "descriptors", 0, 1, [*options, "--total-num-update=9999", "--batch-size=16"])
    pid, counts, seen = run.start(), {}, 0
    while (code := ended(pid, 0.05)) is None:
        update = run.logged()
        if update > seen:
            seen = update
            try:
                counts[update] = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue
    values = list(counts.values())
    return {
        "code": code,
        "epochs": epochs,
        "updates": seen,
        "first": max(values[:10]),
        "last": max(values[-10:]),
    }


def writers(world: Path, folder: Path) -> dict[str, Any]:
    """Two runs in one folder: the second ends with 2 and one line."""
    run = Run(world, folder / "writers", 30, 1)
    first = run.start()
    while not (run.folder / ".unival.lock").is_file():
        time.sleep(0.02)
    second = ended(run.start(), 600)
    return {
        "first": ended(first, 3600),
        "second": second,
        "said": run.log.read_text().count("is being written by process"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--elastic", type=int, default=0, metavar="CHANGES")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--writers", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="work here (default: a temporary folder)")
    args = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    import torch

    torch.set_num_threads(1)  # no pool that a fork would leave behind
    import torch._dynamo  # optimizers import it

    import unival.plugin  # noqa: F401  (and the engine: before the forks, which then start at once)
    from unival.datatools.world import render

    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)).resolve()
        world = folder / "world"
        if not world.is_dir():
            render(
                world,
                seed=1,
                images=60,
                clips=24,
                sounds=24,
                image_size=32,
                video_size=32,
                vocabulary_size=400,
            )
        result: dict[str, Any] = {}
        if args.kills:
            result["kills"] = kill(world, folder, args.kills, args.processes, args.updates, args.seed)
        if args.elastic:
            result["elastic"] = elastic(world, folder, args.elastic, args.updates, args.seed)
        if args.epochs:
            result["descriptors"] = descriptors(world, folder, args.epochs)
        if args.writers:
            result["writers"] = writers(world, folder)
        print(json.dumps(result, indent=1))
    return 1 if result.get("kills", {}).get("problems") else 0


if __name__ == "__main__":
    sys.exit(main())
