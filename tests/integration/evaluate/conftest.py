"""A tiny random model and a small sample world, made once for all tests of evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.evaluate_models import make_checkpoint
from tests.support.shared import shared
from unival.datatools.world import render


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute in this process as in those it starts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for a test table of 101 rows."""

    def make(folder: Path) -> None:
        render(folder / "world", images=672, clips=16, sounds=16, vocabulary_size=400)

    return shared(tmp_path_factory, "large", make) / "world"


@pytest.fixture(scope="session")
def checkpoint(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return (
        shared(tmp_path_factory, "captioner", lambda folder: make_checkpoint(folder, world, "caption"))
        / "model"
    )
