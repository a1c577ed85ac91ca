"""The session's media files and the model of all modalities that use and services share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.released_files import save_model, tiny_world
from tests.support.shared import shared


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a.png .. e.png of different sizes, clip.mp4 and sound.wav, and a vocabulary."""
    return shared(tmp_path_factory, "media", tiny_world)


@pytest.fixture(scope="session")
def folder(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "model", lambda root: save_model(root, media)) / "model"
