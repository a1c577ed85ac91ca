"""One short case of each program below scripts/cluster: a real SLURM, and hosts as network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.plugin_runs import ROOT

pytestmark = pytest.mark.slow
FOLDER = ROOT / "scripts" / "cluster"


def _runs(script: str, program: str, case: str, **variables: str) -> None:
    words = ["bash", str(FOLDER / script), sys.executable, str(FOLDER / program), "--only", case]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and "WRONG" not in done.stdout, done.stdout + done.stderr


def _spaces() -> bool:
    """Whether this machine gives network namespaces, and bridges between them."""
    if os.geteuid() or shutil.which("ip") is None:
        return False
    return not subprocess.run(["bash", str(FOLDER / "hosts.sh"), "true"], capture_output=True).returncode


@pytest.mark.skipif(
    bool(os.geteuid())
    or any(shutil.which(name) is None for name in ("sbatch", "slurmctld", "slurmd", "munged")),
    reason="needs root, slurm-wlm and munge",
)
def test_a_job_saves_goes_back_into_the_queue_and_goes_on():
    _runs("slurm.sh", "try_slurm.py", "signal_requeues", CPUS="4")


@pytest.mark.skipif(not _spaces(), reason="needs root and network namespaces")
def test_a_name_that_nobody_knows_ends_all_ranks():
    _runs("hosts.sh", "try_hosts.py", "unknown_name")
