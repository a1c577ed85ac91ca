"""Options of small runs, and a way to run trainings in real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.forks import Process, forks
from tests.support.needs import skip_without

ROOT = Path(__file__).resolve().parents[2]
skip_without("fairseq")

# About a million parameters; a few updates take seconds.
MODEL = [
    "--arch=unival_tiny",
    "--encoder-embed-dim=32",
    "--decoder-embed-dim=32",
    "--encoder-ffn-embed-dim=64",
    "--decoder-ffn-embed-dim=64",
    "--encoder-layers=1",
    "--decoder-layers=1",
    "--encoder-attention-heads=2",
    "--decoder-attention-heads=2",
    "--image-encoder-name=resnet",
    "--resnet-type=test_resnet",
    "--image-bucket-size=4",
    "--code-image-size=32",
    "--token-bucket-size=32",
    "--max-source-positions=64",
    "--max-target-positions=64",
]
DATA = [
    "--patch-image-size=32",
    "--patch-frame-size=32",
    "--num-frames=2",
    "--max-image-size=64",
    "--sample-rate=16000",
    "--max-audio-len=8000",
    "--max-src-length=20",
    "--max-tgt-length=12",
]
TRAIN = [
    "--criterion=adjust_label_smoothed_cross_entropy",
    "--optimizer=adam",
    "--adam-betas=(0.9,0.98)",
    "--lr=1e-3",
    "--lr-scheduler=polynomial_decay",
    "--warmup-ratio=0.25",
    "--clip-norm=1.0",
    "--batch-size=8",
    "--batch-size-valid=16",
    "--seed=3",
    "--num-workers=0",
    "--log-interval=1",
    "--log-format=simple",
    "--no-epoch-checkpoints",
]
FIRST_OPTIONS = [*MODEL, *DATA, *TRAIN]


@dataclass
class Finished:
    """A finished run: exit code, what it printed on either stream, its folder and its records."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def records(self) -> list[dict]:
        path = self.folder / "train_log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def losses(self) -> list[float]:
        return [r["loss"] for r in self.records if r["split"] == "train"]

    def scores(self) -> list[dict]:
        return [r for r in self.records if r["split"] == "valid"]

    def ok(self) -> Finished:
        assert self.code == 0, self.text
        return self


class Runner:
    """Starts trainings in forks (``forks.py``); their output goes to files in ``scratch``."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.count = 0

    def start(
        self,
        argv: Sequence[object],
        folder: Path,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
        program: str = "unival.train",
    ) -> Started:
        """Start ``python -m PROGRAM ARGV...``; ``folder`` is where the run will write its records."""
        self.count += 1
        log = self.scratch / f"run{self.count}"
        with (
            open(os.devnull, "rb") as none,
            open(log.with_suffix(".out"), "wb") as out,
            open(log.with_suffix(".err"), "wb") as err,
        ):
            files = none.fileno(), out.fileno(), err.fileno()
            process = forks().start([str(w) for w in argv], files, {**self.env, **(env or {})}, cwd, program)
        return Started(process, log, folder)


@dataclass
class Started:
    process: Process
    log: Path
    folder: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def finish(self) -> Finished:
        code = self.process.wait()
        return Finished(code, self._text(".out"), self._text(".err"), self.folder)

    def _text(self, ending: str) -> str:
        return self.log.with_suffix(ending).read_text()

    def kill_after(self, update: int) -> None:
        """Kill the whole process group once ``update`` is logged and there is a checkpoint to go on from."""
        until_update(self, update)
        self.until((self.folder / "checkpoint_last.pt").is_file)
        os.killpg(self.pid, signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; the process must live."""
        for _ in range(30_000):
            if holds():
                return
            assert self.process.poll() is None, self._text(".out") + self._text(".err")
            time.sleep(0.01)
        raise AssertionError(f"it never came: {self._text('.err')}")


def until_update(run: Started, update: int) -> None:
    """Wait until an update is logged."""
    path = run.folder / "train_log.jsonl"
    run.until(lambda: path.is_file() and f'"update": {update},' in path.read_text())


def command(task: str, data, world: Path, folder: Path, *options: str) -> list[str]:
    """Options of the engine for a small run; ``data`` is one path or several."""
    paths = str(data) if isinstance(data, (str, Path)) else ",".join(str(path) for path in data)
    where = [
        f"--task={task}",
        f"--bpe-dir={world / 'vocabulary'}",
        f"--image-dir={world}",
        f"--save-dir={folder}",
        "--networks-from-scratch",
    ]
    return [paths, *where, *FIRST_OPTIONS, *options]


def two_ranks(train, task, data, *options, name="two", code=0):
    """Run a training in two processes; return what rank 0 wrote."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in (0, 1):
        env = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        env = {key: str(value) for key, value in env.items()}
        ranks.append(train(task, data, *options, name=name, env=env, start=True))
    first, second = (rank.finish() for rank in ranks)
    assert (first.code, second.code) == (code, code), first.text + second.text
    assert "loss=" not in second.out, "only rank 0 reports progress"
    return first
