"""A small world of media files and a small model of all modalities, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.released_files import small_model, tiny_world
from unival.checkpoint import save_folder
from unival.predict.predictor import Predictor, load
from unival.vocabulary import Vocabulary

OPTIONS = {
    "patch_image_size": 32,
    "patch_frame_size": 32,
    "num_frames": 2,
    "max_image_size": 64,
    "sample_rate": 16000,
    "max_audio_len": 8000,
}


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a.png .. e.png of different sizes, clip.mp4 and sound.wav, and a vocabulary."""
    return tiny_world(tmp_path_factory.mktemp("use"))


@pytest.fixture(scope="session")
def vocabulary(media: Path) -> Vocabulary:
    return Vocabulary.load(media / "vocabulary")


@pytest.fixture(scope="session")
def folder(media: Path, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_model(len(vocabulary), video_encoder_name="all_resnext14", audio_encoder_name="pann_cnn6")
    # short outputs: what is tested does not need long ones
    decoding = {"settings": {"beam": 2, "max_len_b": 8, "no_repeat_ngram_size": 3}}
    extra = {"task": {"name": "caption"}, "task_options": OPTIONS, "decoding": decoding}
    return save_folder(tmp_path_factory.mktemp("model") / "all", model, vocabulary, extra=extra)


@pytest.fixture(scope="session")
def predictor(folder: Path) -> Predictor:
    return load(folder)
