"""`unival train` from every kind of initial file; a learning rate of 0 shows what was taken."""

from __future__ import annotations

import argparse

import pytest
import torch

from tests.integration.plugin.test_distributed import two_ranks
from tests.support.checks import refused, weights
from unival.modeling.build import build_model
from unival.vocabulary import Vocabulary

STILL = ("--lr=0", "--max-update=1", "--disable-validation", "--freeze-batchnorm")
SIZES = {
    "encoder_embed_dim": 32,
    "decoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "decoder_ffn_embed_dim": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "image_encoder_name": "resnet",
    "resnet_type": "test_resnet",
    "image_bucket_size": 4,
    "code_image_size": 32,
    "token_bucket_size": 32,
    "max_source_positions": 64,
    "max_target_positions": 64,
}


def data(tables):
    return [tables / "caption_train.tsv", tables / "caption_val.tsv"]


@pytest.fixture
def donor(world):
    torch.manual_seed(11)
    return build_model("unival_tiny", len(Vocabulary.load(world / "vocabulary")), **SIZES)


def taken(run, name="checkpoint_last.pt"):
    return weights(run.ok().folder, name)["model"]


def test_from_bart(train, world, tables, tmp_path):
    """The right way and the reference's; a dictionary of the released size with the world's own pieces."""
    words = Vocabulary.load(world / "vocabulary")
    files = words.to_dict()["files"]
    files["dict.txt"] = "".join(f"{i} 1\n" for i in range(50260))
    large = Vocabulary.from_dict({"files": files, "num_codes": 16, "num_bins": words.num_bins})
    large.save(tmp_path / "vocabulary")
    torch.manual_seed(5)
    plain = build_model("unival_tiny", 51201, **{**SIZES, "image_encoder_name": "none"})
    parts = ("embed_tokens", "embed_positions", "layernorm_embedding", "_proj.", "fc1", "fc2", "layer_norm.")
    state = {k: v for k, v in plain.state_dict().items() if any(p in k for p in parts)}
    state = {k: v for k, v in state.items() if "output_projection" not in k and ".layer_norm" not in k}
    folder = tmp_path / "bart.base"
    folder.mkdir()
    torch.save({"args": argparse.Namespace(arch="bart_base"), "model": state}, folder / "model.pt")
    options = (*STILL, f"--init-from={folder / 'model.pt'}", f"--bpe-dir={tmp_path / 'vocabulary'}")
    right = train("caption", data(tables), *options, name="right")
    got = taken(right)
    table = state["encoder.embed_tokens.weight"]
    assert torch.equal(got["encoder.embed_tokens.weight"][:50264], table[:50264])
    assert torch.equal(got["encoder.embed_tokens.weight"][large.mask], table[51200])
    position = "decoder.embed_positions.weight"
    assert torch.equal(got[position][:64], state[position][2:])
    assert "from row 2, where BART's positions begin" in right.text and "BART has no such part" in right.text
    reference = taken(train("caption", data(tables), *options, "--init-as-reference", name="reference"))
    assert torch.equal(reference["encoder.embed_tokens.weight"][:51201], table[: len(large)])
    assert torch.equal(reference[position], state[position])
    refused(train("caption", data(tables), *STILL, "--init-as-reference", name="alone"), "--init-from")


def test_from_an_ofa_file(train, tables, donor, tmp_path):
    """Another name of the architecture, a head, no video network on its side."""
    state = {**donor.state_dict(), "classification_heads.x.weight": torch.zeros(2)}
    args = argparse.Namespace(arch="ofa_tiny", _name="ofa_tiny", **SIZES)
    path = tmp_path / "ofa_tiny.pt"
    torch.save({"args": args, "model": state, "extra_state": {}}, path)
    options = (*STILL, f"--finetune-from-model={path}", "--video-encoder-name=resnext14")
    run = train("caption", data(tables), *options)
    got = taken(run)
    for key in (
        "encoder.embed_images.layer3.0.conv1.weight",
        "encoder.image_proj.weight",
        "decoder.layer_norm.bias",
    ):
        assert torch.equal(got[key], donor.state_dict()[key]), key
    assert "classification head: answers are generated" in run.text
    assert "kept as they were (not in the file)" in run.text and "encoder.embed_videos" in run.text


def test_pretrained_networks(train, tables, donor, tmp_path):
    state = donor.encoder.embed_images.state_dict()
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "resnet18.pth")
    run = train("caption", data(tables), *STILL, f"--resnet-model-path={tmp_path / 'resnet18.pth'}")
    got = taken(run)
    for key in ("conv1.0.weight", "layer2.0.bn2.running_var", "layer3.0.downsample.1.weight"):
        assert torch.equal(got[f"encoder.embed_images.{key}"], state[key]), key
    assert "image network from" in run.text and "counter that older files lack" in run.text


def test_smaller_position_tables_are_extended(train, tables, donor, tmp_path):
    path = tmp_path / "small.pt"
    args = argparse.Namespace(arch="unival_tiny", **SIZES)
    torch.save({"args": args, "model": donor.state_dict(), "extra_state": {}}, path)
    options = (*STILL, f"--finetune-from-model={path}", "--max-source-positions=80", "--image-bucket-size=5")
    run = train("caption", data(tables), *options)
    key = "encoder.embed_positions.weight"
    assert torch.equal(taken(run)[key][:66], donor.state_dict()[key])
    assert "grid 4x4 in the corner of 5x5" in run.text


def test_synchronised_batch_norm_needs_gpus_for_several_processes(train, tables):
    """One process trains with it on a CPU (plain BatchNorm); two are refused."""
    if torch.cuda.is_available():
        pytest.skip("GPUs can synchronise")
    train("caption", data(tables), "--max-update=1", "--disable-validation", "--sync-bn", name="one").ok()
    run = two_ranks(train, "caption", data(tables), *STILL, "--sync-bn", code=2)
    refused(run, "--sync-bn with several processes needs GPUs")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--only-linear-proj --bitfit", "exclude each other"),
        ("--interpolate-position --orig-patch-image-size=0", "orig_patch_image_size is 0"),
        ("--nograd", "freeze_image_encoder"),
        ("--ast", "audio network"),
        ("--return-hidden-state-vision", "embed_images"),
    ],
)
def test_refusals_of_the_command_line(train, tables, option, words):
    refused(train("caption", data(tables), *STILL, *option.split()), words)
