"""Runs of training on the session's world."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.plugin_runs import Runner, command


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    return Runner(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def tables(world) -> Path:
    return world / "tables"


@pytest.fixture
def train(runner, world, tmp_path):
    """Return run(task, data, *options, name) -> Finished (or Started): ``python -m unival.train``."""

    def run(task: str, data, *options: str, name: str = "run", env=None, start: bool = False):
        folder = tmp_path / name
        started = runner.start(command(task, data, world, folder, *options), folder, env)
        return started if start else started.finish()

    return run
