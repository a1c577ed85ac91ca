"""A small sample world and a family of tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.merge_models import folder_of, make_model
from unival.datatools.world import render
from unival.vocabulary import Vocabulary


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merge") / "world"
    render(folder, images=60, clips=8, sounds=8, image_size=32, video_size=32, vocabulary_size=400)
    return folder


@pytest.fixture(scope="session")
def vocabulary(world: Path) -> Vocabulary:
    return Vocabulary.load(world / "vocabulary")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> dict[str, Path]:
    """Folders of a base model and three models near it."""
    root = tmp_path_factory.mktemp("family")
    base = make_model(vocabulary, 0)
    found = {"base": folder_of(root / "base", base, vocabulary)}
    for k, name in enumerate("abc", 1):
        task = ("caption", "vqa", "grounding")[k - 1]
        found[name] = folder_of(root / name, make_model(vocabulary, k, base), vocabulary, task)
    return found
