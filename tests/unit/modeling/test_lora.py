"""Low-rank additions: what they change, folding, and small checkpoints of every way to add weights."""

import json

import pytest
import torch

from tests.support.model_fixtures import mixed_batch
from unival.checkpoint import load_checkpoint, save_folder
from unival.checkpoint.convert import convert
from unival.errors import CheckpointError, ConfigError
from unival.merge.recipe import MergeRecipe
from unival.merge.run import merge
from unival.modeling.build import build_model
from unival.modeling.freezing import ADDED
from unival.modeling.peft import LoraLinear
from unival.modeling.weights import load_into
from unival.vocabulary import Vocabulary

SIZES = {
    "encoder_embed_dim": 32, "decoder_embed_dim": 32, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_ffn_embed_dim": 48, "decoder_ffn_embed_dim": 48, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "resnet_type": "resnet10t", "image_bucket_size": 8, "code_image_size": 64,
}  # fmt: skip
LORA = {"lora": True, "lora_rank": 4, "lora_alpha": 8.0}
WAYS = {
    "lora": LORA,
    "adapter": {"adapter": True, "adapter_dim": 8},
    "prefix": {"encoder_prompt": True, "encoder_prompt_length": 4, "decoder_prompt": True},
    "bitfit": {"bitfit": True},
    "projections": {"only_linear_proj": True},
}


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(["a red circle"] * 4, 256, num_codes=16, num_bins=20)


def make(vocabulary, base=None, seed=0, **options):
    torch.manual_seed(seed)
    model = build_model("unival_tiny", len(vocabulary), **SIZES, **options).eval()
    if base is not None:
        load_into(model, base.state_dict(), (ADDED.pattern,))
    return model


def moved(model, seed=1):
    """As after training: everything that trains is another."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def logits(model):
    with torch.no_grad():
        return model(**mixed_batch((0, -1, 0)))[0]


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("attention", {"q_proj", "k_proj", "v_proj", "out_proj"}),
        ("feed_forward", {"fc1", "fc2"}),
        ("q_proj, v_proj,fc1", {"q_proj", "v_proj", "fc1"}),
    ],
)
def test_targets_start_and_folding(vocabulary, targets, names):
    base = make(vocabulary)
    model = make(vocabulary, base, **LORA, lora_targets=targets)
    assert torch.allclose(logits(model), logits(base), atol=1e-6)
    held = [name for name, module in model.named_modules() if isinstance(module, LoraLinear)]
    assert {name.rpartition(".")[2] for name in held} == names
    assert all(".layers." in name for name in held) and any(".encoder_attn." in n for n in held) == (
        names != {"fc1", "fc2"}
    )
    expected = logits(moved(model))
    for name, module in model.named_modules():  # every addition has an effect
        if isinstance(module, LoraLinear):
            kept = module.lora_b.detach().clone()
            module.lora_b.data.zero_()
            assert not torch.equal(logits(model), expected), name
            module.lora_b.data.copy_(kept)
    model.fold()
    assert not model.config.peft.lora and not any("lora" in key for key in model.state_dict())
    assert torch.allclose(logits(model), expected, atol=1e-5)


def test_dropout_is_for_training_alone(vocabulary):
    model = moved(make(vocabulary, **LORA, lora_dropout=0.5))
    assert torch.equal(logits(model), logits(model))
    assert not torch.equal(logits(model.train()), logits(model))


def test_convert_and_merge_fold(vocabulary, tmp_path):
    base = make(vocabulary)
    outputs = []
    for i in (1, 2):
        model = moved(make(vocabulary, base, **LORA), seed=i)
        save_folder(tmp_path / f"lora{i}", model, vocabulary, extra={"weights": "raw"})
        outputs.append(logits(model))
    for form in ("folder", "fairseq"):
        out = tmp_path / f"folded_{form}"
        convert(tmp_path / "lora1", out, to=form)
        folded = load_checkpoint(out).model
        assert not folded.config.peft.lora
        assert torch.allclose(logits(folded), outputs[0], atol=1e-5)
    convert(tmp_path / "lora2", tmp_path / "folded2")
    for name, models in {"a": ("lora1", "lora2"), "b": ("folded_folder", "folded2")}.items():
        merge(MergeRecipe(str(tmp_path / name), tuple(str(tmp_path / m) for m in models)))
    a, b = (load_checkpoint(tmp_path / name).model for name in "ab")
    assert not a.config.peft.lora and torch.allclose(logits(a), logits(b), atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_small_checkpoints_on_top_of_their_base(vocabulary, tmp_path, way):
    base = make(vocabulary)
    save_folder(tmp_path / "base", base, vocabulary)
    model = moved(make(vocabulary, base, **WAYS[way]))
    save_folder(tmp_path / "whole", model, vocabulary)
    convert(tmp_path / "whole", tmp_path / "small", to="added", base=tmp_path / "base")
    size = {n: (tmp_path / n / "model.safetensors").stat().st_size for n in ("whole", "small")}
    assert size["small"] < size["whole"] / 20
    loaded = load_checkpoint(tmp_path / "small").model
    assert torch.equal(logits(loaded), logits(model)) and loaded.config == model.config
    convert(tmp_path / "small", tmp_path / "again")
    assert torch.allclose(logits(load_checkpoint(tmp_path / "again").model), logits(model), atol=1e-5)


def test_the_base_must_be_there_and_the_same(vocabulary, tmp_path):
    base = make(vocabulary)
    save_folder(tmp_path / "base", base, vocabulary)
    save_folder(tmp_path / "whole", moved(make(vocabulary, base, **LORA)), vocabulary)
    convert(tmp_path / "whole", tmp_path / "there" / "small", to="added", base=tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "there" / "base")
    load_checkpoint(tmp_path / "there" / "small")  # found beside it
    meta = json.loads((tmp_path / "there" / "small" / "config.json").read_text())
    assert meta["base"]["path"] == str(tmp_path / "base")
    save_folder(tmp_path / "there" / "base", make(vocabulary, seed=3), vocabulary)
    with pytest.raises(CheckpointError, match="was trained on top of another"):
        load_checkpoint(tmp_path / "there" / "small")
    (tmp_path / "there" / "base").rename(tmp_path / "there" / "gone")
    with pytest.raises(CheckpointError, match="holds only what was added to"):
        load_checkpoint(tmp_path / "there" / "small")
    with pytest.raises(ConfigError, match="--to added needs --base"):
        convert(tmp_path / "whole", tmp_path / "out", to="added")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora": True, "lora_targets": "attenton"}, "Did you mean 'attention'"),
        ({"lora": True, "lora_rank": 0}, "lora_rank is 0"),
        ({"lora": True, "lora_alpha": 0.0}, "lora_alpha"),
        ({"lora": True, "bitfit": True}, "exclude each other"),
    ],
)
def test_what_cannot_work_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        build_model("unival_tiny", 100, **options)
