"""The session's model, ready to be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from unival.predict.predictor import Predictor, load
from unival.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def vocabulary(media: Path) -> Vocabulary:
    return Vocabulary.load(media / "vocabulary")


@pytest.fixture(scope="session")
def predictor(folder: Path) -> Predictor:
    return load(folder)
