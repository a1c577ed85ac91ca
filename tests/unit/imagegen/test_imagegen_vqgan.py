"""The VQGAN: names of the published files, safe reading, codes that keep pictures."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml

from tests.support.imagegen_fixtures import VQGAN, tiny_vqgan
from unival.errors import CheckpointError, ConfigError
from unival.imagegen.train_vqgan import Codebook, TrainSettings, evaluate, train
from unival.imagegen.vqgan import Vqgan, VqganConfig
from unival.imagegen.weights import load_vqgan, read_config, save_vqgan


def conv(name: str, c_out: int, c_in: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (c_out, c_in, side, side), f"{name}.bias": (c_out,)}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def block(name: str, c_in: int, c_out: int) -> dict[str, tuple[int, ...]]:
    parts = norm(f"{name}.norm1", c_in) | conv(f"{name}.conv1", c_out, c_in, 3)
    parts |= norm(f"{name}.norm2", c_out) | conv(f"{name}.conv2", c_out, c_out, 3)
    return parts | (conv(f"{name}.nin_shortcut", c_out, c_in, 1) if c_in != c_out else {})


def attention(name: str, c: int) -> dict[str, tuple[int, ...]]:
    parts = norm(f"{name}.norm", c)
    for layer in ("q", "k", "v", "proj_out"):
        parts |= conv(f"{name}.{layer}", c, c, 1)
    return parts


def published_keys() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of vqgan_gumbel_f8, spelt out level by level."""
    keys = conv("encoder.conv_in", 128, 3, 3) | conv("encoder.conv_out", 256, 512, 3)
    for level, (c_in, c_out) in enumerate(((128, 128), (128, 128), (128, 256), (256, 512))):
        keys |= block(f"encoder.down.{level}.block.0", c_in, c_out)
        keys |= block(f"encoder.down.{level}.block.1", c_out, c_out)
        if level < 3:
            keys |= conv(f"encoder.down.{level}.downsample.conv", c_out, c_out, 3)
    keys |= attention("encoder.down.3.attn.0", 512) | attention("encoder.down.3.attn.1", 512)
    keys |= conv("decoder.conv_in", 512, 256, 3) | conv("decoder.conv_out", 3, 128, 3)
    for level, (c_in, c_out) in enumerate(((128, 128), (256, 128), (512, 256), (512, 512))):
        for number, width in enumerate((c_in, c_out, c_out)):
            keys |= block(f"decoder.up.{level}.block.{number}", width, c_out)
        if level > 0:
            keys |= conv(f"decoder.up.{level}.upsample.conv", c_out, c_out, 3)
    for number in range(3):
        keys |= attention(f"decoder.up.3.attn.{number}", 512)
    for half, last in (("encoder", 512), ("decoder", 128)):
        keys |= block(f"{half}.mid.block_1", 512, 512) | block(f"{half}.mid.block_2", 512, 512)
        keys |= attention(f"{half}.mid.attn_1", 512) | norm(f"{half}.norm_out", last)
    keys |= conv("quantize.proj", 8192, 256, 1) | {"quantize.embed.weight": (8192, 256)}
    return keys | conv("quant_conv", 256, 256, 1) | conv("post_quant_conv", 256, 256, 1)


def test_keys_and_shapes_of_the_published_network():
    with torch.device("meta"):
        model = Vqgan(VqganConfig())
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == published_keys()
    assert model.scores(torch.empty(1, 3, 256, 256, device="meta")).shape == (1, 8192, 32, 32)


def test_codes_are_deterministic_and_do_not_depend_on_the_batch():
    model = tiny_vqgan()
    images = torch.rand(5, 3, 32, 48, generator=torch.Generator().manual_seed(3)) * 2 - 1
    codes = model.encode(images)
    assert codes.shape == (5, 4, 6) and codes.dtype == torch.int64
    assert int(codes.min()) >= 0 and int(codes.max()) < VQGAN.n_embed and len(codes.unique()) > 4
    assert torch.equal(codes, model.encode(images))
    assert torch.equal(codes, torch.cat([model.encode(image[None]) for image in images]))
    pictures = model.decode(codes)
    assert pictures.shape == images.shape and float(pictures.abs().max()) <= 1
    assert torch.allclose(pictures[3:4], model.decode(codes[3:4]), atol=1e-5)
    with pytest.raises(ConfigError, match="33 x 32 pixels: give sides that 8 divides"):
        model.encode(torch.zeros(1, 3, 32, 33))


def test_a_trained_one_keeps_pictures(tmp_path):
    """Patches of eight colours: codes must tell them apart, which the mean picture cannot."""
    generator = torch.Generator().manual_seed(0)
    patches = (torch.randint(0, 2, (20, 3, 4, 4), generator=generator) * 255).to(torch.uint8)
    images = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)
    sizes = {"num_res_blocks": 1, "z_channels": 16, "embed_dim": 16, "n_embed": 16}
    torch.manual_seed(1)
    model = Vqgan(VqganConfig(ch=8, ch_mult=(1, 2, 2), attn_resolutions=(), groups=4, **sizes))
    losses: list[float] = []
    settings = TrainSettings(updates=80, batch_size=10, lr=1e-2)
    train(model, images, settings, lambda update, loss: losses.append(loss))
    found = evaluate(model, images, images)
    assert found.mse < 0.85 * found.baseline_mse and found.l1 < 0.85 * found.baseline_l1
    assert found.codes_used > 2
    assert len(losses) == 2 and losses[-1] < losses[0] and not model.training
    save_vqgan(model, tmp_path / "vqgan.pt")
    again, report = load_vqgan(tmp_path / "vqgan.pt")
    assert again.sizes == model.sizes and not report.missing and not report.unexpected
    assert evaluate(again, images, images) == found


def test_scores_choose_the_nearest_vector():
    """What training chose by distance is what the written network chooses by its linear scores."""
    torch.manual_seed(0)
    model = tiny_vqgan()
    codebook = Codebook(model.quantize, TrainSettings(updates=10))
    codebook.vectors = torch.randn(VQGAN.n_embed, VQGAN.embed_dim)
    codebook.write()
    places = torch.randn(2, VQGAN.embed_dim, 3, 3)
    flat = places.movedim(1, -1).reshape(-1, VQGAN.embed_dim)
    nearest = torch.cdist(flat, codebook.vectors).argmin(1)
    assert torch.equal(codebook.nearest(flat), nearest)
    assert torch.equal(model.quantize.proj(places).argmax(1).flatten(), nearest)
    assert torch.equal(model.quantize.embed.weight, codebook.vectors)


def test_vectors_follow_their_places_and_unused_ones_restart():
    torch.manual_seed(0)
    model = tiny_vqgan()
    settings = TrainSettings(updates=1000, decay=0.5)
    codebook = Codebook(model.quantize, settings)
    centres = 10 * torch.randn(4, VQGAN.embed_dim)
    for update in range(100, 400):
        which = torch.randint(0, 4, (2, 1, 4, 4))
        places = centres[which.squeeze(1)].movedim(-1, 1) + 0.1 * torch.randn(2, VQGAN.embed_dim, 4, 4)
        places.requires_grad_()
        vectors, distance = codebook.choose(places, update)
    gaps = torch.cdist(centres, codebook.vectors).min(1).values
    assert float(gaps.max()) < 1.0, "every group of places has a vector"
    assert float(distance) < 0.05
    vectors.sum().backward()
    assert torch.equal(places.grad, torch.ones_like(places)), "gradients pass straight through"
    lone = torch.cdist(codebook.vectors, centres).min(1).values
    assert float(lone.max()) < 2.0, "codes without a place were put on places"


def lightning_file(folder: Path, **more: object) -> Path:
    """What the published trainer writes: weights, the loss's own networks, counters."""
    state = dict(tiny_vqgan().state_dict())
    state["loss.perceptual_loss.net.slice1.0.weight"] = torch.ones(2, 2)
    state["loss.discriminator.main.0.bias"] = torch.ones(2)
    path = folder / "last.ckpt"
    torch.save({"epoch": 3, "global_step": 9, "state_dict": state, "optimizer_states": [], **more}, path)
    return path


def model_yaml(folder: Path, **changes: object) -> Path:
    network = {
        "double_z": False, "z_channels": 8, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 4,
        "ch_mult": [1, 2, 2, 4], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0, "groups": 2,
    }  # fmt: skip
    params = {"embed_dim": 8, "n_embed": 32, "kl_weight": 1e-8, "ddconfig": {**network, **changes}}
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump({"model": {"target": "taming.models.vqgan.GumbelVQ", "params": params}}))
    return path


def test_published_files_are_read_with_their_yaml(tmp_path):
    path, config = lightning_file(tmp_path), model_yaml(tmp_path)
    model, report = load_vqgan(path, config)
    assert model.sizes == VQGAN and not model.training
    assert sorted(report.unexpected) == [
        "loss.discriminator.main.0.bias",
        "loss.perceptual_loss.net.slice1.0.weight",
    ]
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(model.encode(images), tiny_vqgan().encode(images))
    with pytest.raises(CheckpointError, match="do not fit the model"):
        load_vqgan(path)  # without sizes they are the published network's
    with pytest.raises(ConfigError, match=r"ddconfig\.double_z must be False"):
        read_config(model_yaml(tmp_path, double_z=True))
    with pytest.raises(ConfigError, match="unknown entries: wings"):
        read_config(model_yaml(tmp_path, wings=2))
    with pytest.raises(ConfigError, match=r"model\.params\.ddconfig"):
        (tmp_path / "other.yaml").write_text("model: {}\n")
        read_config(tmp_path / "other.yaml")


def test_classes_of_the_published_trainer_are_replaced(tmp_path, monkeypatch):
    """Its files keep the state of callbacks under their classes, which need not be installed here."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    for part in (name, name.rpartition(".")[0], name.partition(".")[0]):
        monkeypatch.setitem(sys.modules, part, module)
    path = lightning_file(tmp_path, callbacks={module.ModelCheckpoint: {"best_model_score": torch.ones(())}})
    monkeypatch.undo()
    assert load_vqgan(path, model_yaml(tmp_path))[0].sizes == VQGAN


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="it was not run"):
        load_vqgan(lightning_file(tmp_path, callbacks={"checkpoint": Bomb()}), model_yaml(tmp_path))
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    with pytest.raises(CheckpointError):
        load_vqgan(tmp_path / "plain.pkl")
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(CheckpointError, match="unival data codebook"):
        load_vqgan(tmp_path / "absent.ckpt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no entry 'state_dict'"):
        load_vqgan(tmp_path / "other.pt")


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="groups 32 must divide"):
        VqganConfig(ch=16)
    with pytest.raises(ConfigError, match="must be equal"):
        VqganConfig(z_channels=64)
    with pytest.raises(ConfigError, match="updates must be above 0"):
        TrainSettings(updates=0)
