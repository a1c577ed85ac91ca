"""Media in evaluation go through their networks in parts of a batch."""

import pytest
import torch

from unival import build_model
from unival.errors import DataError
from unival.modeling import row_parts

MEDIA = {
    "image": (5, 3, 32, 32),
    "video": (5, 3, 2, 32, 32),
    "audio": (5, 16000),
}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    networks = {"video_encoder_name": "all_resnext50", "audio_encoder_name": "pann_cnn6"}
    return build_model("unival_tiny", 50, **networks).encoder


def seen_rows(encoder, modality):
    """Rows of every call of the modality's network, by its first norm."""
    network = encoder.front_ends[modality].network
    first = next(m for m in network.modules() if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)))
    counts = []
    return counts, first.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))


@pytest.mark.parametrize("modality", MEDIA)
def test_parts_give_what_the_whole_gives(encoder, modality, monkeypatch):
    encoder.eval()
    media = torch.randn(MEDIA[modality])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    row = media[0].nbytes
    with torch.no_grad():
        counts, hook = seen_rows(encoder, modality)
        whole = encoder.features(modality, media)
        assert counts == [5]
        for limit, want in ((2 * row, [2, 2, 1]), (1, [1] * 5), (5 * row, [5])):
            monkeypatch.setattr(row_parts, "BYTES", limit)
            counts.clear()
            found = encoder.features(modality, media)
            assert counts == want
            torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
        hook.remove()


def test_no_rows_stay_no_rows(encoder):
    with torch.no_grad():
        assert row_parts.by_parts(lambda media: media[:, :2], torch.zeros(0, 3, 4)).shape == (0, 2, 4)


def test_media_without_content_meet_the_network_s_own_error(encoder):
    with torch.no_grad(), pytest.raises(DataError, match="audio of 0 samples is too short"):
        encoder.eval().features("audio", torch.zeros(2, 0))


@pytest.mark.parametrize("learning", ["gradients", "norms of the batch"])
def test_a_batch_that_is_learnt_from_stays_whole(encoder, learning, monkeypatch):
    monkeypatch.setattr(row_parts, "BYTES", 1)
    encoder.train(learning == "norms of the batch")
    with torch.set_grad_enabled(learning == "gradients"):
        counts, hook = seen_rows(encoder, "image")
        encoder.features("image", torch.randn(MEDIA["image"]))
        hook.remove()
    assert counts == [5]
