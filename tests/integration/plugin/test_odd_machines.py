"""A short form of ``benchmarks/odd_machines.py``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.plugin_runs import ROOT

MOUNTS = ["unshare", "--mount", "bash", "-c", "mount -t tmpfs none /mnt"]


def _mounts() -> bool:
    try:
        return not subprocess.run(MOUNTS, capture_output=True).returncode
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _mounts(), reason="needs root to mount a small file system")
def test_a_full_disk_loses_nothing():
    """Refused before the first step; when it fills up later, the other folder takes the checkpoint."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "odd_machines.py"), "--only", "disk"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
