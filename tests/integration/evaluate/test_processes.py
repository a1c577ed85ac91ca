"""101 items on one, two and three processes, killed and gone on with: the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.checks import group_is_gone
from tests.support.evaluate_models import unival
from tests.support.forks import ROOT, forks
from unival.cli import main

pytestmark = pytest.mark.slow  # many processes

DECODING = '{"beam": 2, "max_len_b": 8, "min_len": 3}'
Run = tuple[bytes, bytes, dict[str, Any]]


def words(checkpoint: Path, world: Path, out: Path, *more: object) -> list[str]:
    table = world / "tables" / "caption_test.tsv"
    given = (
        "--image-dir",
        world,
        "--out",
        out,
        "--eval-args",
        DECODING,
        "--batch-size",
        4,
        "--device",
        "cpu",
    )
    return [str(word) for word in ("evaluate", checkpoint, table, *given, *more)]


def outcome(folder: Path) -> Run:
    result = json.loads((folder / "result.json").read_text())
    return (
        (folder / "predictions.jsonl").read_bytes(),
        (folder / "scores.jsonl").read_bytes(),
        result["metrics"],
    )


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "parts").glob("*.jsonl"))


@pytest.fixture(scope="module")
def one(checkpoint: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("one")
    assert main(words(checkpoint, world, out)) == 0
    found = outcome(out)
    assert [json.loads(line)["row"] for line in found[0].splitlines()] == list(range(101))
    assert len({json.loads(line)["prediction"] for line in found[0].splitlines()}) > 1
    return found


def test_three_processes_give_the_bytes_of_one(
    one: Run, checkpoint: Path, world: Path, tmp_path: Path
) -> None:
    done = unival(*words(checkpoint, world, tmp_path, "--processes", 3))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "parts").glob("*-of-3.jsonl"))) == 3
    assert outcome(tmp_path) == one


def test_two_ranks_of_a_launcher_give_the_bytes_of_one(
    one: Run, checkpoint: Path, world: Path, tmp_path: Path
) -> None:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "-m",
        "unival",
    ]
    done = subprocess.run(
        [*launcher, *words(checkpoint, world, tmp_path, "--restart")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path) == one


def test_killed_at_60_percent_the_rest_alone_is_predicted(
    one: Run, checkpoint: Path, world: Path, tmp_path: Path
) -> None:
    with open(os.devnull, "r+b") as none:
        argv, files = words(checkpoint, world, tmp_path, "--processes", 2), (none.fileno(),) * 3
        first = forks().start(argv, files, {**os.environ, "OMP_NUM_THREADS": "1"}, ROOT)
    while lines(tmp_path) < 60:
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "result.json").exists()
    before = {path: path.read_bytes() for path in (tmp_path / "parts").glob("*.jsonl")}
    with open(next(iter(before)), "ab") as file:  # as a kill in the middle of a write leaves it
        file.write('{"row": 3, "id": "é'.encode()[:-1])
    predicted = lines(tmp_path)

    done = unival(*words(checkpoint, world, tmp_path, "--processes", 1))
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path) == one
    assert all(path.read_bytes().startswith(content) for path, content in before.items())
    assert lines(tmp_path) == 101 and predicted >= 60


def test_ctrl_c_ends_all_with_one_line_and_keeps_what_is_predicted(
    one: Run, checkpoint: Path, world: Path, tmp_path: Path
) -> None:
    """Shards printed tracebacks of their own; once the first process waited for them, they went on alone."""
    running = subprocess.Popen(
        [sys.executable, "-m", "unival", *words(checkpoint, world, tmp_path / "out", "--processes", 2)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while lines(tmp_path / "out") < 8:
        assert running.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, errors = running.communicate(timeout=120)
    said = [line for line in errors.splitlines() if "Warning" not in line and "warn" not in line]
    assert running.returncode == 130 and said[-1] == "interrupted", errors
    assert "Traceback" not in errors and "error" not in errors
    assert group_is_gone(running.pid)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"parts", "run.json"} and 8 <= lines(tmp_path / "out") < 101
    done = unival(*words(checkpoint, world, tmp_path / "out"))
    assert done.returncode == 0 and outcome(tmp_path / "out") == one


def test_shards_without_a_launcher_and_a_last_run_that_merges(
    one: Run, checkpoint: Path, world: Path, tmp_path: Path
) -> None:
    for shard in (1, 0):
        assert main(words(checkpoint, world, tmp_path, "--shard", shard, "--num-shards", 2)) == 0
        assert not (tmp_path / "result.json").exists()
    assert main(words(checkpoint, world, tmp_path)) == 0
    assert lines(tmp_path) == 101
    assert outcome(tmp_path) == one
