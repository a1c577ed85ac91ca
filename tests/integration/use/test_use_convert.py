"""Released files (their structure), our own, and what is neither: read, converted, exported, read again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.released_files import SMALL, released, small_model
from unival.checkpoint import load_checkpoint, load_into
from unival.checkpoint.convert import convert
from unival.checkpoint.identify import config_of, family_of, size_of
from unival.cli import main
from unival.core.torchfile import read_fairseq
from unival.errors import CheckpointError, ConfigError
from unival.modeling.build import build_from_config, build_model
from unival.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
BASE = json.loads((ROOT / "tests/parity/data/base_state_dict.json").read_text())
# options that the weights cannot show, as the released scripts pass them
HIDDEN = {"attn_scale_factor": 2.0, "share_all_embeddings": True, "activation_fn": "gelu", "dropout": 0.1}


def hollow(shapes):
    """Half-precision tensors of full shape that take no room in a file."""
    kinds = {"int64": torch.int64}
    return {
        key: torch.zeros((), dtype=kinds.get(kind, torch.float16)).expand(shape)
        for key, (shape, kind) in shapes.items()
    }


def rebuilt(file):
    """The model that a file describes, loaded strictly; without memory for its weights."""
    config = config_of(file, file.model)
    with torch.device("meta"):
        model = build_from_config(config)
    report = load_into(model, file.model)
    return model, config, report


def tensors(path):
    """Hash of every tensor of a folder."""
    found = load_file(path / "model.safetensors")
    return {key: hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in found.items()}


def test_released_unival_base(tmp_path):
    keys = BASE["keys"]
    networks = {"image_encoder_name": "timm_resnet", "video_encoder_name": "all_resnext101"}
    networks |= {"audio_encoder_name": "pann_cnn14", "hop_size": 200}
    path = released(tmp_path / "c.pt", hollow(keys), "unival_base", "audio_caption", {**HIDDEN, **networks})
    file = read_fairseq(path)
    assert family_of(file) == "UnIVAL" and file.args["ddp_backend"] == "c10d"
    model, config, report = rebuilt(file)
    assert size_of(config) == "base" and config.audio.hop_size == 200 and config.transformer.dropout == 0.1
    assert not report.missing and not report.unexpected
    assert sum(p.numel() for p in model.parameters()) == BASE["n_parameters"]


def test_released_ofa_base(tmp_path):
    """OFA's key set: a three-stage image network without classifier, nothing for video and audio."""
    with torch.device("meta"):
        state = build_model("unival_base", image_encoder_name="resnet").state_dict()
    assert (
        sum(v.numel() for k, v in state.items() if k.startswith("encoder.embed_images.") and "." in k) > 27e6
    )
    shapes = {k: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()}
    path = released(tmp_path / "ofa.pt", hollow(shapes), "ofa_base", "refcoco", HIDDEN)
    file = read_fairseq(path)
    assert family_of(file) == "OFA"
    model, config, _ = rebuilt(file)
    assert size_of(config) == "base" and config.image.image_encoder_name == "resnet"
    assert sum(p.numel() for p in model.parameters()) == 182_238_536  # OFA base, as counted in the reference


def test_sizes_come_from_the_weights(vocabulary, tmp_path):
    """Arguments that are absent or lie do not matter where the weights show the truth."""
    model = small_model(len(vocabulary), add_mm_type_embedding=True, scale_heads=False, token_bucket_size=64)
    for number, options in enumerate(
        ({}, {"encoder_layers": 12, "encoder_embed_dim": 1024, "scale_heads": True})
    ):
        given = {"resnet_type": "resnet18", **options}
        path = released(tmp_path / f"{number}.pt", model.state_dict(), "unival_large", "caption", given)
        loaded = load_checkpoint(path, vocabulary=vocabulary)
        assert size_of(loaded.model.config).startswith("own size")
        theirs = loaded.model.state_dict()
        assert all(torch.equal(v, theirs[k]) for k, v in model.state_dict().items())


def test_conversion_keeps_everything(vocabulary, media, tmp_path, capsys):
    """load -> save -> load -> export -> load: one set of hashes, one set of logits; report and prompts."""
    raw, average = (small_model(len(vocabulary), seed, audio_encoder_name="pann_cnn6") for seed in (0, 1))
    options = {**SMALL, "audio_encoder_name": "pann_cnn6"}
    task = {"patch_image_size": 32, "eval_args": '{"beam": 2, "max_len_b": 9}', "ans2label_dict": '{"no": 0}'}
    source = released(
        tmp_path / "r.pt",
        raw.state_dict(),
        "unival_base",
        "audio_caption",
        options,
        task,
        average.state_dict(),
    )
    words = ["--bpe-dir", str(media / "vocabulary")]
    assert main(["convert", str(source), str(tmp_path / "a"), "--weights", "ema", *words]) == 0
    said = capsys.readouterr().out
    for part in ("family: UnIVAL", "weights: ema", "audio caption", "resnet_model_path", "tensors loaded"):
        assert part in said
    meta = json.loads((tmp_path / "a/config.json").read_text())
    assert meta["prompts"] == {"caption.audio": " what does the video describe?"}
    assert meta["task_options"]["patch_image_size"] == 32 and "ans2label_dict" not in meta["task_options"]
    assert meta["decoding"] == {"settings": {"beam": 2, "max_len_b": 9, "no_repeat_ngram_size": 0}}
    assert not any("/data/" in str(value) for value in meta["model"].values())

    convert(tmp_path / "a", tmp_path / "b.pt", "fairseq")
    convert(tmp_path / "b.pt", tmp_path / "c", "huggingface", prompts={"caption.audio": " what do you hear?"})
    convert(tmp_path / "c", tmp_path / "d.pt", "fairseq")
    convert(tmp_path / "d.pt", tmp_path / "e")
    assert tensors(tmp_path / "a") == tensors(tmp_path / "c") == tensors(tmp_path / "e")
    last = load_checkpoint(tmp_path / "e")
    assert last.prompts == {"caption.audio": " what do you hear?"} and last.weights == "ema"
    assert (last.family, last.task, last.decoding) == ("UnIVAL", meta["task"], meta["decoding"])
    batch = {
        "src_tokens": torch.tensor([[0, 9, 8, 2]]),
        "src_lengths": None,
        "prev_output_tokens": torch.tensor([[0, 5, 6]]),
        "patch_images": torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    }
    with torch.no_grad():
        expected = average(**batch)[0]
        for name in ("a", "b.pt", "c", "d.pt", "e"):
            assert torch.equal(load_checkpoint(tmp_path / name).model(**batch)[0], expected), name
    raw_too, _ = convert(source, tmp_path / "raw", weights="raw", bpe_dir=media / "vocabulary")
    assert torch.equal(load_checkpoint(raw_too).model(**batch)[0], raw(**batch)[0])


def test_exported_file_has_the_engines_structure(folder, tmp_path):
    path, _ = convert(folder, tmp_path / "x.pt", "fairseq")
    with torch.serialization.safe_globals([Namespace]):
        content = torch.load(path, weights_only=True)
    entries = "args cfg model criterion optimizer_history task_state extra_state last_optimizer_state"
    assert list(content) == entries.split() and content["args"] is None
    with torch.device("meta"):
        expected = build_from_config(load_checkpoint(folder).model.config).state_dict()
    assert {k: v.shape for k, v in content["model"].items()} == {k: v.shape for k, v in expected.items()}
    model = content["cfg"]["model"]
    assert model.arch == model._name == "unival_tiny" and model.video_model_path is None
    assert content["cfg"]["task"]["_name"] == "caption" and content["cfg"]["task"]["num_bins"] == 40


def test_the_engine_loads_an_exported_file(folder, tmp_path):
    pytest.importorskip("fairseq")
    path, _ = convert(folder, tmp_path / "x.pt", "fairseq")
    code = (
        "import sys, torch, argparse\n"
        "from fairseq import checkpoint_utils\n"
        "torch.serialization.add_safe_globals([argparse.Namespace])\n"
        "state = checkpoint_utils.load_checkpoint_to_cpu(sys.argv[1])\n"
        "assert state['cfg'].model.arch == 'unival_tiny' and state['cfg'].task._name == 'caption'\n"
        "assert state['extra_state']['train_iterator']['epoch'] == 1\n"
        "from unival import plugin\n"
        "from fairseq import models\n"
        "from unival.checkpoint import load_checkpoint\n"
        "loaded = load_checkpoint(sys.argv[1])\n"
        "task = argparse.Namespace(vocabulary=loaded.vocabulary)\n"
        "model = models.build_model(state['cfg'].model, task)\n"
        "model.load_state_dict(state['model'], strict=True, model_cfg=state['cfg'].model)\n"
        "theirs = loaded.model.state_dict()\n"
        "assert all(torch.equal(v, theirs[k]) for k, v in model.state_dict().items())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_typed_configurations_are_read(vocabulary, tmp_path):
    """cfg as omegaconf pickles it, typed by the engine's dataclasses."""
    omegaconf = pytest.importorskip("omegaconf")
    model = small_model(len(vocabulary))
    config = omegaconf.OmegaConf.create(
        {
            "task": {"_name": "caption", "patch_image_size": 48, "selected_cols": "0,4,2"},
            "model": {
                "_name": "unival_tiny",
                "arch": "unival_tiny",
                "resnet_type": "resnet18",
                "lr": [0.1, 0.2],
            },
        }
    )
    path = released(tmp_path / "t.pt", model.state_dict(), "", "", {}, config=config)
    assert read_fairseq(path).args["lr"] == [0.1, 0.2]
    loaded = load_checkpoint(path, vocabulary=vocabulary)
    assert loaded.task == {"name": "caption", "modality": "image"}
    assert loaded.task_options["patch_image_size"] == 48


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return exec, (f"open({str(self.target)!r}, 'w').write('ran')",)


def test_foreign_code_is_refused_and_not_run(vocabulary, tmp_path, capsys):
    target = tmp_path / "written"
    state = small_model(len(vocabulary)).state_dict()
    path = tmp_path / "evil.pt"
    torch.save({"args": None, "cfg": {"model": Evil(target)}, "model": state}, path)
    assert main(["convert", str(path), str(tmp_path / "out")]) == 2
    assert "exec" in capsys.readouterr().err
    assert not target.exists() and not (tmp_path / "out").exists()


def test_files_of_other_kinds_are_explained(vocabulary, media, tmp_path):
    good = released(
        tmp_path / "g.pt", small_model(len(vocabulary)).state_dict(), "unival_base", "caption", SMALL
    )
    words = media / "vocabulary"
    cut = tmp_path / "cut.pt"
    cut.write_bytes(good.read_bytes()[:-2000])
    text = tmp_path / "text.pt"
    text.write_text("version https://git-lfs.github.com/spec/v1")
    other = tmp_path / "roberta.pt"
    torch.save({"args": Namespace(arch="roberta"), "model": {"encoder.x": torch.zeros(1)}}, other)
    bart = tmp_path / "bart.pt"
    layers = {f"{s}.layers.0.fc1.weight": torch.zeros(4, 4) for s in ("encoder", "decoder")}
    embedding = {"encoder.embed_tokens.weight": torch.zeros(9, 4)}
    torch.save({"args": Namespace(arch="bart_base"), "model": {**layers, **embedding}}, bart)
    network = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, network)
    for path, expected in (
        (cut, "cut off"),
        (text, "text.pt"),
        (other, "roberta"),
        (bart, "BART"),
        (network, "no entry 'model'"),
        (tmp_path / "absent.pt", "does not exist"),
    ):
        with pytest.raises(CheckpointError, match=expected):
            convert(path, tmp_path / "out", bpe_dir=words)
    with pytest.raises(CheckpointError, match="carries no vocabulary"):
        convert(good, tmp_path / "out", bpe_dir=tmp_path)
    with pytest.raises(CheckpointError, match="EMA"):
        convert(good, tmp_path / "out", weights="ema", bpe_dir=words)
    Vocabulary.train(["other words"], 256, num_codes=3, num_bins=4).save(tmp_path / "other")
    with pytest.raises(CheckpointError, match="tokens"):
        convert(good, tmp_path / "out", bpe_dir=tmp_path / "other")
    with pytest.raises(ConfigError, match="unknown prompt"):
        convert(good, tmp_path / "out", bpe_dir=words, prompts={"caption.sound": "x"})
    state = dict(small_model(len(vocabulary)).state_dict())
    state["encoder.pos_ln.weight"] = torch.zeros(31)
    del state["decoder.layers.1.fc1.bias"]
    broken = released(tmp_path / "b.pt", state, "unival_base", "caption", SMALL)
    with pytest.raises(CheckpointError, match="2 entries") as error:
        convert(broken, tmp_path / "out", bpe_dir=words)
    assert "(31,)" in str(error.value) and "decoder.layers.1.fc1.bias" in str(error.value)
    assert not (tmp_path / "out").exists()
