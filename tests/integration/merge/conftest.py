"""A family of tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.merge_models import folder_of, make_model
from tests.support.shared import shared
from unival.vocabulary import Vocabulary


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def vocabulary(world: Path) -> Vocabulary:
    return Vocabulary.load(world / "vocabulary")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> dict[str, Path]:
    """Folders of a base model and three models near it."""

    def make(root: Path) -> None:
        base = make_model(vocabulary, 0)
        folder_of(root / "base", base, vocabulary)
        for k, (name, task) in enumerate(zip("abc", ("caption", "vqa", "grounding"), strict=True), 1):
            folder_of(root / name, make_model(vocabulary, k, base), vocabulary, task)

    root = shared(tmp_path_factory, "family", make)
    return {name: root / name for name in ("base", "a", "b", "c")}
