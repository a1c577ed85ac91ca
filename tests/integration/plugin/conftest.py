"""A small rendered world, and runs of training on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.plugin_runs import Runner, command


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    return Runner(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    from unival.datatools.world import render

    folder = tmp_path_factory.mktemp("data") / "world"
    render(folder, seed=1, images=60, clips=24, sounds=24, image_size=32, video_size=32, vocabulary_size=400)
    return folder


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
