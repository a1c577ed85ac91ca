"""Sound by the image network, as a picture of its spectrogram."""

import pytest
import torch

from tests.support.model_fixtures import ALL, mixed_batch, row_alone, small_model
from unival.checkpoint import load_checkpoint, save_folder
from unival.checkpoint.convert import convert
from unival.errors import ConfigError, DataError
from unival.modeling.build import build_model
from unival.modeling.sound_picture import SoundPicture
from unival.modeling.weights import load_into, modality_exceptions
from unival.tasks.keeping import frozen, network_hash
from unival.vocabulary import Vocabulary

SOUND = {"audio_encoder_name": "image", "mel_bins": 64}


def _tone(hertz: float, loud: float = 0.5, rate: int = 48000, seconds: float = 0.6) -> torch.Tensor:
    return loud * torch.sin(2 * torch.pi * hertz * torch.arange(int(rate * seconds)) / rate)[None]


def test_a_picture_shows_pitch_loudness_and_time():
    picture = SoundPicture(64, 480, 16).eval()
    low, high = picture(_tone(200)), picture(_tone(5000))
    assert low.shape == (1, 3, 64, 64)  # 61 frames, filled up to a multiple of 16
    assert torch.equal(low[:, 0], low[:, 2])
    assert low[0, 0, :, 30].argmax() < 10 < 30 < high[0, 0, :, 30].argmax()
    assert low.min() == -1 and -1 < low.max() <= 1
    assert (low[..., 61:] == -1).all()
    quiet = picture(_tone(200, 0.005))  # 40 decibels below
    assert (low - quiet)[0, 0, low[0, 0, :, 30].argmax(), 30] == pytest.approx(40 * 2 / 90, abs=1e-3)
    assert (picture(torch.zeros(1, 4800)) == -1).all()


def test_stripes_are_left_out_in_training_alone():
    torch.manual_seed(0)
    picture = SoundPicture(64, 480, 16)
    noise = torch.randn(4, 28800)
    assert (picture.train()(noise)[..., :61] == -1).any()
    assert not (picture.eval()(noise)[..., :60] == -1).any()


def test_rows_of_all_modalities_stand_alone_and_the_image_network_learns():
    model = small_model(**SOUND)
    batch = mixed_batch((0, 2, -1, 0, 2))
    logits = model(**batch)[0]
    for row in range(5):
        alone = model(**row_alone(batch, row))[0][0]
        assert torch.allclose(logits[row, : len(alone)], alone, atol=1e-4)
    keys = model.state_dict().keys()
    assert not any(key.startswith("encoder.embed_audios.") for key in keys)
    model.zero_grad()
    model.train()(**mixed_batch((2, 2)))[0].sum().backward()
    assert model.encoder.embed_images.conv1.weight.grad.abs().sum() > 0
    assert model.encoder.sound_picture.logmel_extractor.melW.grad is None


def test_a_frozen_network_keeps_features_of_sound_under_its_spectrogram():
    model = small_model(**SOUND, freeze_image_encoder=True).train()
    assert not model.encoder.sound_picture.training
    wave = torch.randn(2, 19200)
    assert torch.equal(model.encoder.features("audio", wave), model.encoder.features("audio", wave))
    other = small_model(**{**SOUND, "hop_size": 240}, freeze_image_encoder=True)
    other.encoder.embed_images.load_state_dict(model.encoder.embed_images.state_dict())
    hashes = [{n: network_hash(*f.computing) for n, f in frozen(m).items()} for m in (model, other)]
    assert hashes[0]["image"] == hashes[1]["image"]
    assert hashes[0]["audio"] != hashes[1]["audio"] and hashes[0]["audio"] != hashes[0]["image"]


def test_checkpoints(tmp_path):
    vocabulary = Vocabulary.train(["a loud tone"] * 4, 256, num_codes=16, num_bins=20)
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "image_bucket_size": 8, "code_image_size": 64}
    backbone = {"image_encoder_name": "timm", "image_backbone": "mobilenetv3_small_050"}
    model = build_model("unival_tiny", len(vocabulary), **sizes, **SOUND, **backbone).eval()
    save_folder(tmp_path / "model", model, vocabulary)
    convert(tmp_path / "model", tmp_path / "model.pt", to="fairseq")
    batch = mixed_batch((0, 2))
    for name in ("model", "model.pt"):
        assert torch.equal(load_checkpoint(tmp_path / name).model(**batch)[0], model(**batch)[0])


def test_a_model_without_sound_is_a_start():
    start, model = small_model(), small_model(seed=1, **SOUND)
    missing, unexpected = modality_exceptions(model)
    report = load_into(model, start.state_dict(), missing, unexpected)
    assert {key.split(".")[1] for key in report.missing} == {
        "audio_proj", "embed_audio_positions", "sound_picture"
    }  # fmt: skip
    assert torch.equal(model.encoder.embed_images.conv1.weight, start.encoder.embed_images.conv1.weight)


def test_what_cannot_work_is_refused():
    for options, words in (
        ({"image_encoder_name": "none"}, "needs an image network"),
        ({"freeze_audio_encoder": True}, "freeze_image_encoder"),
        ({"audio_model_path": "x.pth"}, "resnet_model_path"),
        ({"mel_bins": 40}, "multiple of the image network's stride"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_model("unival_tiny", 100, **{**ALL, **SOUND, **options})
    with pytest.raises(DataError, match="too short"):
        small_model(**SOUND).encoder.features("audio", torch.zeros(1, 100))
