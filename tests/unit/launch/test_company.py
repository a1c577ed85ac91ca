"""Ranks as real processes that meet at a store: who dies or falls silent is named by all others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.plugin_runs import ROOT
from unival.launch.watchdog import HUNG

RANK = """
import os, sys, time
from pathlib import Path
from unival.launch import company
company._BEAT, company._SILENCE, company._GRACE = 0.2, 5.0, 0.5

class Keys:  # as torch's store, which takes seconds to import
    def set(self, name, value):
        Path(f"{name}.part").write_text(value)
        os.rename(f"{name}.part", name)
    def get(self, name):
        while not Path(name).is_file():
            time.sleep(0.02)
        return Path(name).read_bytes()

rank, world = int(sys.argv[1]), 3
company.COMPANY.join(Keys(), rank, [f"rank {k} (host{k}, pid 1)" for k in range(world)] if rank == 0 else [])
print("joined", flush=True)
sys.stdin.readline()
company.COMPANY.leave()
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank)],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        for one in started:
            assert one.stdout is not None and one.stdout.readline() == "joined\n"
        yield started
    finally:
        for one in started:
            one.kill()
            one.communicate()


@pytest.mark.parametrize(
    ("number", "missing", "why"),
    [
        (signal.SIGSTOP, 2, "nothing was heard of it for 5 s"),
        (signal.SIGSTOP, 0, "nothing was heard of it for 5 s"),
        (signal.SIGKILL, 1, "it has ended; look at its output"),
        (signal.SIGKILL, 0, "it has ended; look at its output"),
    ],
)
def test_the_missing_one_is_named_by_all_others(ranks, number, missing, why):
    ranks[missing].send_signal(number)
    for rank, one in enumerate(ranks):
        if rank != missing:
            assert one.wait(60) == HUNG
            assert one.stderr is not None
            assert one.stderr.read().splitlines() == [
                f"error: rank {missing} (host{missing}, pid 1) is gone: {why}. This run ends; the same command goes on "
                "where it was saved"
            ]


def test_who_says_farewell_is_not_missed(ranks):
    for one in (ranks[1], ranks[0]):
        assert one.stdin is not None and one.stderr is not None
        one.stdin.write("\n")
        one.stdin.flush()
        assert one.wait(60) == 0 and not one.stderr.read()
    time.sleep(2)
    assert ranks[2].poll() is None
