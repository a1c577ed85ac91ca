"""The session's model behind a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service_fixtures import LIMITS, serving
from unival.predict.predictor import Predictor, load


@pytest.fixture(scope="session")
def predictor(folder: Path) -> Predictor:
    return load(folder, limits=LIMITS.media())


@pytest.fixture(scope="session")
def address(predictor: Predictor) -> Iterator[str]:
    with serving(predictor, LIMITS) as url:
        yield url
