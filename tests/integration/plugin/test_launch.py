"""Starting, meeting, stopping and failing of several processes. SLURM's own programs are stand-ins here: only the
command lines given to them are checked; everything else is real processes that meet over the loopback device."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.checks import refused, same, weights
from tests.support.plugin_runs import ROOT, command
from unival.errors import ConfigError
from unival.launch import Node
from unival.launch.preflight import Presence, differences
from unival.launch.stopping import STOPPED

LAUNCH = ROOT / "run_scripts" / "_launch.sh"
SHORT = ("--max-update=3", "--batch-size=2", "--disable-validation", "--ddp-backend=legacy_ddp")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ranks_of(port: int, world: int = 2) -> list[dict[str, str]]:
    common = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        {k: str(v) for k, v in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()} for rank in range(world)
    ]


def start_both(train, tables, *options, each=((), ()), name="run"):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    environments = ranks_of(free_port())
    return [
        train("caption", data, *SHORT, *options, *own, name=name, env=env, start=True)
        for env, own in zip(environments, each, strict=True)
    ]


def finish(ranks) -> list:
    return [rank.finish() for rank in ranks]


def until(condition, what: str, seconds: float = 240.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} never came")


# the roll


def test_ranks_print_who_they_are_and_what_they_read(train, tables):
    first, second = finish(start_both(train, tables))
    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert "pre-flight: 2 ranks with equal code and options" in first.out
    table = first.out.split("pre-flight:")[1].splitlines()[1:4]
    assert table[0].split() == ["rank", "host", "pid", "device"]
    assert [line.split()[0::3] for line in table[1:]] == [["0", "cpu"], ["1", "cpu"]]
    assert "pre-flight" not in second.text


def test_a_rank_with_other_options_is_named(train, tables):
    each = (("--lr=1e-3",), ("--lr=2e-3",))
    for run in finish(start_both(train, tables, each=each)):
        refused(run, "rank 1 (", "differs from rank 0 in options", "lr is '[0.002]', not '[0.001]'")


def test_a_rank_with_other_data_is_named(runner, tables, tmp_path):
    """The options are equal on both: what lies at the path is not (as on a node with an old copy)."""
    lines = (tables / "caption_train.tsv").read_text().splitlines(keepends=True)
    for rank, count in enumerate((20, 18)):
        (tmp_path / f"node{rank}").mkdir()
        (tmp_path / f"node{rank}" / "rows.tsv").write_text("".join(lines[:count]))
    started = []
    for rank, env in enumerate(ranks_of(free_port())):
        words = command("caption", "rows.tsv", tables.parent, tmp_path / "run", *SHORT)
        started.append(runner.start(words, tmp_path / "run", env, cwd=tmp_path / f"node{rank}"))
    for run in finish(started):
        refused(run, "rank 1 (", "differs from rank 0 in data", "18 rows', not", "20 rows")


def test_absent_ranks_are_named(train, tables):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    environments = ranks_of(free_port(), world=3)
    wait = "--preflight-timeout=3"
    lonely = train("caption", data, *SHORT, wait, name="first", env=environments[0], start=True)
    refused(lonely.finish(), "rank(s) 1, 2 of 3 did not come within 3 s", "Present:")
    orphan = train("caption", data, *SHORT, wait, name="second", env=ranks_of(free_port())[1], start=True)
    refused(orphan.finish(), "rank 1 cannot reach rank 0", "rank 0 did not come")


SILENT = """
import datetime, os, sys, time
import torch.distributed as dist
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
if dist.get_rank() == 1:
    time.sleep(30)
from unival.tasks.preflight import check_together
try:
    check_together({}, "cpu", 2.0)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_silent_rank_is_named(tmp_path):
    script = tmp_path / "silent.py"
    script.write_text(SILENT)
    ranks = [
        subprocess.Popen(
            [sys.executable, script],
            env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for env in ranks_of(free_port())
    ]
    out, _ = ranks[0].communicate()
    ranks[1].kill()
    ranks[1].communicate()
    assert "UnivalError pre-flight: not all ranks came within 2 s" in out and "Ranks 1" in out


def test_differences_are_found_both_ways():
    ranks = [
        Presence(n, "host", 9, "cpu", {"code": facts})
        for n, facts in enumerate(({"a": "1"}, {"b": "1"}, {"a": "1"}))
    ]
    assert differences(ranks) == [
        "rank 1 (host, pid 9) differs from rank 0 in code: a is 'None', not '1'; b is '1', not 'None'"
    ]


# stopping


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on_exactly(train, tables, number):
    options = ("--max-update=8", "--num-workers=1") if number == signal.SIGUSR1 else ("--max-update=8",)
    whole, _ = finish(start_both(train, tables, *options, name="whole"))
    first, second = start_both(train, tables, *options, name="parts")
    until(lambda: "pre-flight: 2 ranks" in first.log.with_suffix(".out").read_text(), "the roll call")
    os.kill(second.pid, number)  # well before the last update, whatever else the machine does
    stopped, other = finish([first, second])
    assert (stopped.code, other.code) == (STOPPED, STOPPED), stopped.text + other.text
    assert number.name in other.text and "the same command goes on" in stopped.text
    reached = stopped.records[-1]["update"]
    assert 1 <= reached < 8
    assert weights(first.folder)["optimizer_history"][-1]["num_updates"] == reached
    parts, _ = finish(start_both(train, tables, *options, name="parts"))
    parts.ok()
    assert parts.losses() == whole.losses()
    same(weights(parts.folder)["model"], weights(whole.folder)["model"])


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


# the launcher


def launch(words, folder: Path, **env: object) -> subprocess.Popen:
    values = {"OMP_NUM_THREADS": 1, "GPUS": 1, "UNIVAL_OUT": folder, **env}
    return subprocess.Popen(
        ["bash", LAUNCH, *map(str, words)],
        env={**os.environ, **{k: str(v) for k, v in values.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def recipe(world, tables, tmp_path) -> Path:
    """A recipe that passes the small model's options through the engine's command line."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: caption\narch: unival_tiny\ncriterion: adjust_label_smoothed_cross_entropy\noptimizer: adam\n"
        f"lr_scheduler: polynomial_decay\ndata: {{train: '{tables / 'caption_train.tsv'}'}}\n"
        f"inputs: {{bpe_dir: '{world / 'vocabulary'}', image_dir: '{world}'}}\n"
        f"checkpoint: {{save_dir: '{tmp_path / 'run'}', networks_from_scratch: true}}\n"
        "run: {disable_validation: true}\n"
    )
    return path


def words_for(recipe: Path, *options: str) -> list:
    from tests.support.plugin_runs import FIRST_OPTIONS

    rest = [
        word
        for word in FIRST_OPTIONS
        if not word.startswith(("--arch", "--criterion", "--optimizer", "--lr-sch"))
    ]
    return ["train", recipe, *rest, *SHORT, *options]


def test_two_nodes_meet_and_stop_together(recipe, tmp_path):
    port = free_port()
    nodes = [
        launch(
            words_for(recipe, "--max-update=5000"),
            tmp_path,
            NNODES=2,
            NODE_RANK=rank,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in (0, 1)
    ]
    until(lambda: '"update": 2,' in _read(tmp_path / "run" / "train_log.jsonl"), "update 2")
    nodes[1].terminate()  # the machine is taken back: its launcher tells the training, and that all ranks
    (out, err), (_, other) = (node.communicate() for node in nodes)
    assert [node.returncode for node in nodes] == [STOPPED, STOPPED], out + err + other
    assert "2 rank(s) x 2 rows" in out and "pre-flight: 2 ranks" in out
    assert weights(tmp_path / "run")["optimizer_history"][-1]["num_updates"] >= 2


def test_a_killed_rank_ends_the_run_and_is_named(recipe, tmp_path):
    node = launch(words_for(recipe, "--max-update=5000"), tmp_path, GPUS=2)
    until(lambda: '"update": 1,' in _read(tmp_path / "run" / "train_log.jsonl"), "update 1")
    assert "unival.launch" in Path(f"/proc/{node.pid}/cmdline").read_text()  # no shell waits for it
    ranks = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    victim = next(pid for pid in ranks if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(int(victim), signal.SIGKILL)
    _, err = node.communicate()
    assert node.returncode == 128 + signal.SIGKILL, err
    assert f"rank 1 ({socket.gethostname()}, pid {victim}) killed by SIGKILL" in err


def test_ranks_end_with_their_launcher(recipe, tmp_path):
    """They went on, and the same command then started a second run in the folder."""
    node = launch(words_for(recipe, "--max-update=5000"), tmp_path, GPUS=2)
    until(lambda: '"update": 1,' in _read(tmp_path / "run" / "train_log.jsonl"), "update 1")
    ranks = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    assert len(ranks) == 2
    node.kill()
    node.wait()
    until(
        lambda: not any(b"unival" in _bytes(Path(f"/proc/{pid}/cmdline")) for pid in ranks), "their end", 60
    )
    saved = weights(tmp_path / "run")["optimizer_history"][-1]["num_updates"]
    assert saved == json.loads(_read(tmp_path / "run" / "train_log.jsonl").splitlines()[-1])["update"]
    assert not (tmp_path / "run" / ".unival.lock").exists()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_exit_code_and_last_words_of_a_failing_rank_are_passed_on(tmp_path):
    node = launch(["trian"], tmp_path, GPUS=2)
    _, err = node.communicate()
    assert node.returncode == 2
    assert "ended with exit code 2; it wrote last:" in err.split("unival.launch: rank")[1]
    assert "unknown verb 'trian'. Did you mean 'train'?" in err.split("it wrote last:")[1]


def test_torchrun_starts_it_as_well(recipe, tmp_path):
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "unival",
    ]
    done = subprocess.run(
        [str(word) for word in [*words, *words_for(recipe)]],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "pre-flight: 2 ranks" in done.stdout
    assert weights(tmp_path / "run")["optimizer_history"][-1]["num_updates"] == 3


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"GPUS": "two"}, "GPUS is 'two'"),
        ({"GPUS": "0"}, "at least 1"),
        ({"NNODES": "2"}, "SLURM_NODEID is not set"),
        ({"NNODES": "2", "NODE_RANK": "0"}, "MASTER_ADDR is not set"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "NODE_RANK is 2 of 2"),
    ],
)
def test_bad_surroundings_are_named(environ, message):
    with pytest.raises(ConfigError, match=message):
        Node.from_environment(environ)


def test_ranks_count_over_the_nodes():
    node = Node.from_environment(
        {"GPUS": "4", "NNODES": "3", "SLURM_NODEID": "2", "MASTER_ADDR": "head", "MASTER_PORT": "77"}
    )
    assert node.variables(1) == {
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "12",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "head",
        "MASTER_PORT": "77",
    }


# SLURM: stand-ins that print their arguments

STAND_INS = {
    "sbatch": 'printf "%s\\n" "$@"',
    "scontrol": 'if [ "$1 $2" = "show job" ]; then echo "$JOB"; elif [ "$1" = show ]; then echo node7; echo node8; '
    'else echo "scontrol $*" >> "$CALLS"; fi',
    "srun": 'printf "%s\\n" "$@" "$NNODES" "$MASTER_ADDR" "$MASTER_PORT" "$0"; exec 1>&-; ${SRUN_ENDS:-exit 0}',
}


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in STAND_INS.items():
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": "40007",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "JOB": job_facts("None"),
    }


def job_facts(preempted: str) -> str:
    """What SLURM says of a job that was started at noon."""
    return (
        "JobId=40007 JobName=wrap\n   StartTime=2026-03-01T12:00:00 EndTime=Unknown Deadline=N/A\n"
        f"   PreemptEligibleTime=2026-03-01T12:00:00 PreemptTime={preempted}"
    )


def test_submission_to_slurm(slurm, tmp_path):
    done = launch(
        ["train", "a recipe.yaml"], tmp_path, PATH=slurm["PATH"], SUBMIT="--nodes=4 --gpus-per-node=8"
    )
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert out.splitlines() == [
        "--requeue",
        "--open-mode=append",
        "--signal=B:USR1@120",
        "--nodes=4",
        "--gpus-per-node=8",
        "--wrap",
        f"exec bash {LAUNCH} train a\\ recipe.yaml ",
    ]


def test_one_launcher_on_each_node_of_an_allocation(slurm, tmp_path):
    done = launch(["train", "recipe.yaml"], tmp_path, **{**slurm, "GPUS": "8"})
    out, err = done.communicate()
    assert done.returncode == 0, err
    *command_line, nodes, address, port, _ = out.splitlines()
    assert command_line == [
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        "bash",
        str(LAUNCH),
        "train",
        "recipe.yaml",
    ]
    assert (nodes, address, port) == ("2", "node7", "20007")
    assert not Path(slurm["CALLS"]).exists(), "a run that ended is not put back into the queue"


@pytest.mark.parametrize(
    ("number", "preempted", "code", "requeued"),
    [
        (signal.SIGUSR1, "None", STOPPED, True),
        (signal.SIGUSR1, "None", 1, False),
        (signal.SIGTERM, "2026-03-01T13:00:00", STOPPED, True),
        (signal.SIGTERM, "2026-03-01T11:00:00", STOPPED, False),  # before it came back; this is scancel
        (signal.SIGTERM, "None", STOPPED, False),
    ],
)
def test_a_preempted_job_is_put_back_into_the_queue_and_a_cancelled_one_is_not(
    slurm, tmp_path, number, preempted, code, requeued
):
    ends = tmp_path / "ends"
    ends.write_text(f"trap 'exit {code}' USR1\ntouch {tmp_path}/up\nwhile :; do sleep 0.05; done\n")
    slurm["JOB"] = job_facts(preempted)
    node = launch(["train", "recipe.yaml"], tmp_path, **slurm, SRUN_ENDS=f"source {ends}")
    until((tmp_path / "up").exists, "the stand-in")
    node.send_signal(number)
    node.communicate()
    assert node.returncode == code
    assert _read(Path(slurm["CALLS"])) == ("scontrol requeue 40007\n" if requeued else "")


def test_torch_is_not_needed_to_launch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import unival.launch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not [line for line in done.stderr.splitlines() if line.endswith(" torch")]
