"""The session's world and its runner of trainings; the order of files."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from tests.support.shared import shared


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: what comes last is short, so that no test process waits for another at the end."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


def pytest_collection_finish() -> None:
    """The collector need not walk thousands of tests and all that they import again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered world: 60 pictures, 24 clips, 24 sounds."""

    def make(folder: Path) -> None:
        from unival.datatools.world import render

        sizes = {"images": 60, "clips": 24, "sounds": 24, "image_size": 32, "video_size": 32}
        render(folder / "world", seed=1, vocabulary_size=400, **sizes)

    return shared(tmp_path_factory, "small", make) / "world"
