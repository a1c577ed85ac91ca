"""Videos by the image network, frame by frame."""

import pytest
import torch

from tests.support.model_fixtures import ALL, mixed_batch, row_alone, small_model
from unival.checkpoint import load_checkpoint, save_folder
from unival.checkpoint.convert import convert
from unival.errors import ConfigError, DataError
from unival.modeling.build import build_model
from unival.vocabulary import Vocabulary

FRAMES = {"video_encoder_name": "frames", "audio_encoder_name": "pann_cnn6"}


def test_features_are_those_of_the_frames_and_tokens_know_their_time():
    model = small_model(**FRAMES)
    clip = torch.randn(2, 3, 4, 64, 64)
    features = model.encoder.features("video", clip)
    assert features.shape == (2, 512, 4, 2, 2)
    for frame in range(4):
        alone = model.encoder.features("image", clip[:, :, frame])
        assert torch.allclose(features[:, :, frame], alone, atol=1e-5)
    keys = model.state_dict().keys()
    assert not any(key.startswith("encoder.embed_videos.") for key in keys)
    assert "encoder.embed_frame_positions.weight" in keys
    batch = mixed_batch((1, 1))
    logits = model(**batch)[0]
    turned = {**batch, "patch_videos": batch["patch_videos"].flip(2)}
    assert not torch.allclose(model(**turned)[0], logits, atol=1e-4)
    model.train()(**batch)[0].sum().backward()
    assert model.encoder.embed_images.conv1.weight.grad is not None


def test_rows_of_all_modalities_stand_alone():
    model = small_model(**FRAMES)
    batch = mixed_batch((0, 1, -1, 2, 1))
    logits = model(**batch)[0]
    for row in range(5):
        alone = model(**row_alone(batch, row))[0][0]
        assert torch.allclose(logits[row, : len(alone)], alone, atol=1e-4)


def test_checkpoints(tmp_path):
    vocabulary = Vocabulary.train(["a red circle"] * 4, 256, num_codes=16, num_bins=20)
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "image_bucket_size": 8, "code_image_size": 64}
    model = build_model("unival_tiny", len(vocabulary), resnet_type="resnet10t", **sizes, **FRAMES).eval()
    save_folder(tmp_path / "model", model, vocabulary)
    convert(tmp_path / "model", tmp_path / "model.pt", to="fairseq")
    batch = mixed_batch((0, 1))
    for name in ("model", "model.pt"):
        assert torch.equal(load_checkpoint(tmp_path / name).model(**batch)[0], model(**batch)[0])


def test_what_cannot_work_is_refused():
    for options, words in (
        ({"image_encoder_name": "none"}, "needs an image network"),
        ({"freeze_video_encoder": True}, "freeze_image_encoder"),
        ({"video_model_path": "x.pth"}, "resnet_model_path"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_model("unival_tiny", 100, **{**ALL, **FRAMES, **options})
    with pytest.raises(DataError, match="4 frames; there are positions for 2"):
        small_model(**FRAMES, video_frame_positions=2)(**mixed_batch((1,)))
