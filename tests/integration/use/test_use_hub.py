"""A Hugging Face folder: read by transformers from local files, generating through our generator."""

from __future__ import annotations

import pytest
import torch

from tests.support.needs import needs
from unival.checkpoint.convert import convert
from unival.errors import CheckpointError, ConfigError
from unival.generate import generate
from unival.predict.predictor import load

pytestmark = needs("transformers")


@pytest.fixture(scope="module")
def hub_folder(folder, tmp_path_factory):
    path, _ = convert(folder, tmp_path_factory.mktemp("hub") / "model", "huggingface")
    return path


@pytest.fixture(scope="module")
def model(hub_folder, tmp_path_factory):
    import transformers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("cache"))
        )
        return transformers.AutoModel.from_pretrained(
            hub_folder, trust_remote_code=True, local_files_only=True
        )


def test_it_is_the_same_model(model, folder, hub_folder, predictor, media):
    ours = predictor.model
    assert not model.training and model.config.model_type == "unival"
    theirs = dict(model.named_parameters())
    assert all(torch.equal(p, theirs[name]) for name, p in ours.named_parameters())
    batch = {"patch_images": torch.randn(2, 3, 32, 32), "patch_types": torch.tensor([0, 0])}
    source, target = torch.tensor([[0, 9, 8, 2], [0, 7, 2, 1]]), torch.tensor([[0, 5, 6], [0, 6, 7]])
    with torch.no_grad():
        logits = model(source, target, **batch).logits
        assert torch.equal(logits, ours(source, None, target, **batch)[0])
    given = [media / "a.png", media / "clip.mp4"]
    for one in (model.predictor(), load(hub_folder)):
        assert [r.text for r in one.caption(given)] == [r.text for r in predictor.caption(given)]


def test_generation(model):
    source = torch.tensor([[0, 9, 8, 2], [0, 7, 2, 1]])
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    settings = {"beam": 3, "max_len_b": 7, "no_repeat_ngram_size": 2}
    expected = generate(model.loaded.model, {"src_tokens": source, "patch_images": pictures}, settings)
    found = model.generate(
        source,
        patch_images=pictures,
        num_beams=3,
        max_new_tokens=7,
        no_repeat_ngram_size=2,
        num_return_sequences=2,
    )
    assert len(found) == 4
    for row, hypotheses in enumerate(expected):
        for place, hypothesis in enumerate(hypotheses[:2]):
            assert found[2 * row + place].tolist()[: len(hypothesis.tokens)] == hypothesis.tokens
    with pytest.raises(ConfigError, match=r"num_beam.*beam"):
        model.generate(source, num_beam=3)


def test_saving_and_refusing(model, hub_folder, tmp_path):
    model.save_pretrained(tmp_path / "again")
    names = {path.name for path in hub_folder.iterdir()}
    assert {"config.json", "modeling_unival.py", "configuration_unival.py", "model.safetensors"} <= names
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (hub_folder / name).read_bytes(), name
    kind = type(model)
    assert kind.from_pretrained(hub_folder, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="device_map"):
        kind.from_pretrained(hub_folder, device_map="auto")
    with pytest.raises(CheckpointError, match="not a folder"):
        kind.from_pretrained(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="from_pretrained"):
        kind(model.config)
