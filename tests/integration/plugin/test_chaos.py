"""Short forms of ``benchmarks/chaos.py``, and what a terminal and a second command do to a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from tests.support.checks import refused, weights
from tests.support.plugin_runs import ROOT, until_update
from unival.launch.stopping import STOPPED


def test_kills_leave_nothing_and_change_nothing(tmp_path):
    words = ["--kills=2", "--updates=8", "--seed=4", f"--folder={tmp_path}"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result = json.loads(done.stdout[done.stdout.index("{") :])["kills"]
    # a checkpoint every three updates, which may still be on its way when the next one is due
    assert result["kills"] == 2 and not result["problems"] and result["lost updates, most"] <= 6


def test_ctrl_c_saves_and_a_second_run_in_the_folder_is_refused(train, tables):
    """Both ran: log doubled, checkpoints mixed."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    options = ("--max-update=5000", "--disable-validation", "--num-workers=1")
    first = train("caption", data, *options, start=True)
    until_update(first, 1)
    second = train("caption", data, *options)
    refused(second, f"is being written by process {first.pid} on")
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does, to workers too
    stopped = first.finish()
    assert stopped.code == STOPPED, stopped.text
    assert stopped.err.splitlines() == [
        "the run ends and saves after this update; Ctrl-C once more ends it at once"
    ]
    assert "(SIGINT)" in stopped.out and not (stopped.folder / ".unival.lock").exists()
    assert weights(stopped.folder)["optimizer_history"][-1]["num_updates"] == stopped.records[-1]["update"]
