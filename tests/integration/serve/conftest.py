"""A small model of all modalities behind a real server, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service_fixtures import LIMITS, save, serving, tiny_world
from unival.predict.predictor import Predictor, load


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def folder(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    networks = {"video_encoder_name": "all_resnext14", "audio_encoder_name": "pann_cnn6"}
    return save(tmp_path_factory.mktemp("model"), media, **networks)


@pytest.fixture(scope="session")
def predictor(folder: Path) -> Predictor:
    return load(folder, limits=LIMITS.media())


@pytest.fixture(scope="session")
def address(predictor: Predictor) -> Iterator[str]:
    with serving(predictor, LIMITS) as url:
        yield url
