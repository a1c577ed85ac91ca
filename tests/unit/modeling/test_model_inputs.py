import pytest
import torch

from tests.support.model_fixtures import ALL, VOCAB, mixed_batch, row_alone, small_model, text
from unival.errors import ConfigError, DataError

ORDERS = [(0, -1, 1, 2, 0), (1, 0), (2, 1), (-1, -1, 2), (-1, -1)]


@pytest.fixture(scope="module")
def model():
    return small_model(**ALL)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("types", ORDERS)
def test_each_row_equals_the_row_alone(model, types, compact):
    full = mixed_batch(types)
    with torch.no_grad():
        logits, extra = model(**mixed_batch(types, compact))
        for row in range(len(types)):
            alone, _ = model(**row_alone(full, row))
            together = logits[row, : alone.size(1)]
            assert (together - alone[0]).abs().max() < 2e-5  # measured 7e-7
    padding = extra["encoder_out"]["encoder_padding_mask"][0]
    assert padding.shape == (len(types), extra["encoder_out"]["encoder_out"][0].size(0))


def test_media_of_a_row_matters(model):
    batch = mixed_batch()
    with torch.no_grad():
        before, _ = model(**batch)
        for row, name in ((0, "patch_images"), (2, "patch_videos"), (3, "patch_audios")):
            changed = {**batch, name: batch[name].clone()}
            changed[name][row] = -changed[name][row].flip(-1)
            after, _ = model(**changed)
            difference = (after - before).abs().amax((1, 2))
            assert difference[row] > 1e-4
            assert (difference[torch.arange(5) != row] < 2e-5).all()


def test_hidden_images(model):
    batch = mixed_batch((0, 0))
    hidden = {**batch, "patch_masks": torch.tensor([True, False])}
    other = {**hidden, "patch_images": batch["patch_images"].clone()}
    other["patch_images"][1] = 3.0
    with torch.no_grad():
        shown, _ = model(**batch)
        first, _ = model(**hidden)
        second, _ = model(**other)
        text_only, _ = model(**row_alone({**batch, "patch_types": torch.tensor([0, -1])}, 1))
    assert (shown[0] - first[0]).abs().max() < 2e-5
    assert (first[1] - second[1]).abs().max() < 2e-5
    assert (first[1, : text_only.size(1)] - text_only[0]).abs().max() < 2e-5


def test_no_gradient_reaches_a_hidden_image(model):
    batch = mixed_batch((0, 0))
    batch["patch_images"].requires_grad_()
    logits, _ = model(**batch, patch_masks=torch.tensor([True, False]))
    logits.sum().backward()
    grad = batch["patch_images"].grad
    assert grad[0].abs().sum() > 0 and grad[1].abs().sum() == 0


def test_without_types_every_row_is_an_image_or_text(model):
    batch = mixed_batch((0, 0))
    typed = model(**batch)[0]
    del batch["patch_types"]
    assert torch.equal(model(**batch)[0], typed)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"patch_types": torch.tensor([0, 7])}, DataError, "patch type 7"),
        ({"patch_types": torch.tensor([0])}, DataError, "patch_types"),
        ({"patch_types": torch.tensor([0, 1])}, DataError, "patch_videos is missing"),
        ({"patch_images": torch.zeros(3, 3, 64, 64)}, DataError, "3 rows"),
        ({"patch_images": torch.zeros(2, 64, 64)}, DataError, "4 dimensions"),
        ({"patch_images": torch.zeros(2, 3, 64, 43 * 32)}, DataError, "42x42"),
        ({"patch_images_2": torch.zeros(2, 3, 64, 64)}, ConfigError, "second_image"),
        ({"src_tokens": torch.full((2, 1025), 5)}, DataError, "1024"),
        ({"prev_output_tokens": torch.full((2, 1025), 5)}, DataError, "1024"),
    ],
)
def test_bad_batches_are_explained(model, change, error, words):
    with pytest.raises(error, match=words), torch.no_grad():
        model(**{**mixed_batch((0, 0)), **change})


def test_missing_networks_and_short_audio_are_explained():
    plain = small_model()
    with pytest.raises(ConfigError, match="video_encoder_name"):
        plain(**mixed_batch((1, 1)))
    with pytest.raises(ConfigError, match="image_encoder_name"):
        small_model(image_encoder_name="none")(**mixed_batch((0, 0)))
    with pytest.raises(DataError, match="too short"):
        small_model(**ALL)(
            text(1, 4), None, text(1, 4), patch_audios=torch.zeros(1, 600), patch_types=torch.tensor([2])
        )


@pytest.mark.parametrize("mm", [False, True])
def test_second_image(mm):
    model = small_model(second_image=True, add_mm_type_embedding=mm)
    batch = mixed_batch((0, -1, 0))
    second = torch.randn(3, 3, 96, 64)
    with torch.no_grad():
        together, extra = model(**batch, patch_images_2=second)
        swapped, _ = model(**{**batch, "patch_images": second}, patch_images_2=batch["patch_images"])
        one, _ = model(**batch)
        for row in (0, 2):
            alone, _ = model(**row_alone(batch, row), patch_images_2=second[row : row + 1])
            assert (together[row, : alone.size(1)] - alone[0]).abs().max() < 2e-5
    assert (together[0] - swapped[0]).abs().max() > 1e-3
    assert (together[1] - one[1]).abs().max() < 2e-5
    assert extra["encoder_out"]["encoder_out"][0].size(0) == 6 + 6 + 9


def test_type_rows_tell_modalities_apart():
    model = small_model(add_mm_type_embedding=True, **ALL)
    assert model.encoder.type_embedding.num_embeddings == 4
    batch = mixed_batch((0, 1, 2, -1))
    base = model(**batch)[0]
    for kind, row in ((0, 1), (1, 2), (2, 3)):
        with torch.no_grad():
            model.encoder.type_embedding.weight[row] += 1.0 + torch.arange(32) / 8
            moved = (model(**batch)[0] - base).abs().amax((1, 2))
            model.encoder.type_embedding.weight[row] -= 1.0 + torch.arange(32) / 8
        assert [bool(m > 1e-3) for m in moved] == [i == kind for i in range(4)]


def test_patch_sampling_is_for_training_and_seeded():
    model = small_model(sample_patch_num=3)
    batch = mixed_batch((0, 0))

    def length():
        torch.manual_seed(5)
        return model.encoder(batch["src_tokens"], patch_images=batch["patch_images"])["encoder_out"][0]

    assert length().size(0) == 6 + 9
    model.train()
    model.encoder.embed_images.eval()
    first, again = length(), length()
    assert first.size(0) == 3 + 9 and torch.equal(first, again)
    torch.manual_seed(6)
    other = model.encoder(batch["src_tokens"], patch_images=batch["patch_images"])["encoder_out"][0]
    assert not torch.equal(first, other)
    asked = small_model(sample_patch_num=3, sample_patches_in_eval=True)
    assert (
        asked.encoder(batch["src_tokens"], patch_images=batch["patch_images"])["encoder_out"][0].size(0) == 12
    )


def test_vocabulary_size_of_the_output(model):
    assert model(**mixed_batch((0,)))[0].shape == (1, 7, VOCAB)
    assert model.modalities == ("image", "video", "audio")


def test_features_only(model):
    batch = mixed_batch((0, 0))
    features, _ = model(**batch, features_only=True)
    assert torch.allclose(model.decoder.output_layer(features), model(**batch)[0])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_three_stage_network_has_stride_16(name):
    model = small_model(image_encoder_name="resnet", resnet_type=name)
    out = model.encoder(text(1, 4), patch_images=torch.zeros(1, 3, 64, 64))
    assert out["encoder_out"][0].size(0) == 16 + 4
