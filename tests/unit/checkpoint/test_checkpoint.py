import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.model_fixtures import ALL, SMALL, mixed_batch
from unival.checkpoint import (
    load_bart,
    load_checkpoint,
    load_folder,
    load_into,
    load_network,
    modality_exceptions,
    read_fairseq,
    read_header,
    save_folder,
)
from unival.errors import CheckpointError
from unival.modeling.build import build_model
from unival.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(["a red circle on a blue square"] * 4, 256, num_codes=16, num_bins=20)


def make(vocabulary, seed=0, **options):
    torch.manual_seed(seed)
    return build_model("unival_tiny", len(vocabulary), **{**SMALL, **options}).eval()


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def fairseq_file(path, model, vocabulary, ema=None, **options):
    """What fairseq's trainer writes, with our task's state."""
    args = argparse.Namespace(arch="unival_tiny", task="caption", dropout=None, **SMALL, **options)
    content = {
        "args": None,
        "cfg": {"model": args, "task": args, "common": {"seed": 7}},
        "model": model.state_dict(),
        "optimizer_history": [{"num_updates": 3}],
        "task_state": {"unival": {"vocabulary": vocabulary.to_dict(), "task": {"name": "caption"}}},
        "extra_state": {"epoch": 2, "train_iterator": {"epoch": 2}},
        "last_optimizer_state": {},
    }
    if ema is not None:
        content["extra_state"]["ema"] = ema
    torch.save(content, path)
    return path


def test_folder_round_trip(tmp_path, vocabulary):
    model = make(vocabulary, **ALL)
    with torch.no_grad():
        model.encoder.embed_audios.logmel_extractor.melW.mul_(0.5)  # a bank of another rate must survive
    folder = save_folder(
        tmp_path / "model", model, vocabulary, {"caption": " what?"}, {"task": {"name": "caption"}}
    )
    again, words, meta = load_folder(folder)
    assert again.config == model.config and words.fingerprint() == vocabulary.fingerprint()
    assert meta["prompts"] == {"caption": " what?"} and meta["task"] == {"name": "caption"}
    theirs = again.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in model.state_dict().items())
    assert again.decoder.output_projection.weight is again.encoder.embed_tokens.weight
    batch = mixed_batch((0, 1, 2, -1))
    with torch.no_grad():
        assert torch.equal(model(**batch)[0], again(**batch)[0])
    keys = set(load_file(folder / "model.safetensors"))
    assert "decoder.embed_tokens.weight" not in keys and not any("rp_bucket" in k for k in keys)
    save_folder(tmp_path / "twice", again, words)
    assert all(torch.equal(v, theirs[k]) for k, v in load_folder(tmp_path / "twice")[0].state_dict().items())


def test_saving_over_a_checkpoint_replaces_it(tmp_path, vocabulary):
    save_folder(tmp_path / "model", make(vocabulary, 0), vocabulary)
    second = make(vocabulary, 1)
    save_folder(tmp_path / "model", second, vocabulary)
    assert torch.equal(
        load_folder(tmp_path / "model")[0].encoder.image_proj.weight, second.encoder.image_proj.weight
    )
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_killed_save_leaves_a_whole_checkpoint(tmp_path, vocabulary):
    save_folder(tmp_path / "model", make(vocabulary), vocabulary)
    code = (
        "import sys; from unival.checkpoint import load_folder, save_folder\n"
        "model, words, meta = load_folder(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "while True: save_folder(sys.argv[1], model, words)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.7)
        process.send_signal(signal.SIGKILL)
    load_folder(tmp_path / "model")


def test_damaged_folders_are_explained(tmp_path, vocabulary):
    def fresh(name):
        return save_folder(tmp_path / name, make(vocabulary), vocabulary)

    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_folder(tmp_path / "nothing")
    (fresh("a") / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_folder(tmp_path / "a")
    weights = fresh("b") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_folder(tmp_path / "b")
    config = fresh("c") / "config.json"
    config.write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        load_folder(tmp_path / "c")
    other = Vocabulary.train(["z" * 9] * 4, 256, num_codes=15, num_bins=21)
    assert len(other) == len(vocabulary)
    other.save(fresh("d"))
    with pytest.raises(CheckpointError, match="vocabulary"):
        load_folder(tmp_path / "d")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        fresh("e")
    small = Vocabulary.train(["a"], 256, num_codes=1, num_bins=2)
    with pytest.raises(CheckpointError, match="own vocabulary"):
        save_folder(tmp_path / "f", make(vocabulary), small)


def test_fairseq_file(tmp_path, vocabulary):
    model = make(vocabulary, video_encoder_name="all_resnext14")
    path = fairseq_file(tmp_path / "c.pt", model, vocabulary, video_encoder_name="all_resnext14")
    file = read_fairseq(path)
    assert file.arch == "unival_tiny" and file.ema is None and file.extra["epoch"] == 2
    assert read_header(path)["task_state"]["unival"]["task"] == {"name": "caption"}
    loaded = load_checkpoint(path)
    assert loaded.weights == "raw" and loaded.task == {"name": "caption"}
    assert loaded.model.modalities == ("image", "video") and not loaded.model.training
    theirs = loaded.model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in model.state_dict().items())


def test_averaged_weights(tmp_path, vocabulary):
    raw, average = make(vocabulary, 0), make(vocabulary, 1)
    path = fairseq_file(tmp_path / "c.pt", raw, vocabulary, ema=average.state_dict())
    for which, source, name in (("auto", average, "ema"), ("ema", average, "ema"), ("raw", raw, "raw")):
        loaded = load_checkpoint(path, which)
        assert loaded.weights == name
        assert torch.equal(loaded.model.encoder.image_proj.weight, source.encoder.image_proj.weight)
    plain = fairseq_file(tmp_path / "d.pt", raw, vocabulary)
    with pytest.raises(CheckpointError, match="EMA"):
        load_checkpoint(plain, "ema")


def test_released_layout(tmp_path, vocabulary):
    """Arguments that name a network the weights lack, half precision, a larger code grid, no vocabulary."""
    model = make(vocabulary, code_image_size=256).half()
    path = fairseq_file(
        tmp_path / "c.pt",
        model,
        vocabulary,
        image_encoder_name="timm_resnet",
        video_encoder_name="all_resnext101",
        video_model_path="/not/here.pth",
        code_image_size=128,
        some_task_option=3,
    )
    content = torch.load(path, weights_only=False)
    content["task_state"] = {}
    torch.save(content, path, _use_new_zipfile_serialization=False)  # the format of older files
    with pytest.raises(CheckpointError, match="no vocabulary"):
        load_checkpoint(path)
    loaded = load_checkpoint(path, vocabulary=vocabulary)
    assert loaded.model.modalities == ("image",)
    assert loaded.model.config.transformer.code_image_size == 256
    assert loaded.model.encoder.image_proj.weight.dtype == torch.float32


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_file_is_not_run(tmp_path):
    path, target = tmp_path / "evil.pt", tmp_path / "made"
    torch.save({"model": {}, "extra_state": Evil(target)}, path)
    with pytest.raises(CheckpointError, match="mkdir"):
        read_fairseq(path)
    assert not target.exists()


def test_unreadable_files_are_explained(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_fairseq(tmp_path / "none.pt")
    for name, data in (("text.pt", b"hello"), ("empty.pt", b""), ("cut.pt", None)):
        path = tmp_path / name
        if data is None:
            torch.save({"model": {"a": torch.zeros(1000)}}, path)
            data = path.read_bytes()[:900]
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=name):
            read_fairseq(path)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no entry 'model'"):
        read_fairseq(tmp_path / "list.pt")


def test_loading_is_strict_and_lists_everything(vocabulary):
    model = make(vocabulary)
    before = state_of(model)
    state = state_of(make(vocabulary, 1))
    del state["encoder.pos_ln.weight"]
    state["encoder.surprise"] = torch.zeros(2)
    state["encoder.image_proj.bias"] = torch.zeros(31)
    with pytest.raises(CheckpointError) as error:
        load_into(model, state)
    for words in ("encoder.pos_ln.weight", "encoder.surprise", "(31,)", "(32,)", "3 entries"):
        assert words in str(error.value)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    state["encoder.image_proj.bias"] = torch.ones(32)
    report = load_into(model, state, (r"pos_ln",), (r"surprise$",))
    assert report.missing == ["encoder.pos_ln.weight"] and report.unexpected == ["encoder.surprise"]
    assert "surprise" in str(report) and (model.encoder.image_proj.bias == 1).all()


def test_modalities_may_differ_as_a_whole(vocabulary):
    small, large = make(vocabulary, 0), make(vocabulary, 1, **ALL)
    report = load_into(large, small.state_dict(), *modality_exceptions(large))
    assert report.missing and all("video" in k or "audio" in k for k in report.missing)
    assert torch.equal(large.encoder.image_proj.weight, small.encoder.image_proj.weight)
    report = load_into(small, large.state_dict(), *modality_exceptions(small))
    assert "embed_videos" in str(report) and not report.missing
    with pytest.raises(CheckpointError):
        load_into(small, large.state_dict())


def test_second_image_extends_the_type_table(vocabulary):
    old, new = make(vocabulary, 0), make(vocabulary, 1, second_image=True)
    report = load_into(new, old.state_dict())
    table = new.encoder.type_embedding.weight
    assert torch.equal(table[:2], old.encoder.type_embedding.weight) and torch.equal(table[2], table[1])
    assert len(report.resized) == 1


def test_computed_tables_are_not_taken(vocabulary):
    model = make(vocabulary)
    state = state_of(model)
    state["decoder.image_position_idx"] = torch.zeros(3, dtype=torch.long)
    state["encoder.token_rp_bucket"].zero_()
    load_into(model, state)
    assert model.encoder.token_rp_bucket.max() == 510 and model.decoder.image_position_idx.numel() == 1026


def test_network_files(tmp_path, vocabulary):
    donor = make(vocabulary, 5, **ALL).encoder
    image = {k: v for k, v in donor.embed_images.state_dict().items() if not k.startswith("fc")}
    torch.save({**image, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, tmp_path / "image.pth")
    video = {f"module.{k}": v for k, v in donor.embed_videos.state_dict().items()}
    torch.save({"state_dict": {**video, "module.fc.weight": torch.zeros(4, 4)}}, tmp_path / "video.pth")
    audio = {f"sed_model.{k}": v for k, v in donor.embed_audios.state_dict().items()}
    torch.save({"model": {**audio, "sed_model.fc1.weight": torch.zeros(4, 4)}}, tmp_path / "audio.pth")
    paths = {
        "resnet_model_path": "image.pth",
        "video_model_path": "video.pth",
        "audio_model_path": "audio.pth",
    }
    paths = {k: str(tmp_path / v) for k, v in paths.items()}
    model = make(vocabulary, 6, **ALL, **paths).encoder
    for name in ("embed_images", "embed_videos", "embed_audios"):
        theirs = getattr(donor, name).state_dict()
        ours = getattr(model, name).state_dict()
        assert all(torch.equal(v, ours[k]) for k, v in theirs.items() if not k.startswith("fc")), name
    three = make(
        vocabulary, 7, image_encoder_name="resnet", resnet_model_path=paths["resnet_model_path"]
    ).encoder
    assert torch.equal(three.embed_images.layer3[0].conv1.weight, donor.embed_images.layer3[0].conv1.weight)
    bands = make(
        vocabulary, 8, audio_encoder_name="pann_cnn6", mel_bins=32, audio_model_path=paths["audio_model_path"]
    )
    assert bands.encoder.embed_audios.bn0.num_features == 32
    with pytest.raises(CheckpointError, match="do not fit"):
        load_network(model.embed_videos, paths["resnet_model_path"])


def test_bart(tmp_path):
    """bart.base: 51201 rows with <mask> last, positions from 2, no extra norms."""
    sizes = {k: v for k, v in SMALL.items() if "_dim" in k or "layers" in k or "heads" in k}
    torch.manual_seed(0)
    model = build_model("unival_tiny", 50300, image_encoder_name="none", **sizes)
    before = state_of(model)
    table = torch.randn(51201, 32)
    state = {"encoder.embed_tokens.weight": table, "decoder.embed_tokens.weight": table}
    for key, value in before.items():
        layer = ".layers." in key and not any(w in key for w in ("c_attn", "_ln", "ffn_layernorm"))
        if layer or "layernorm_embedding" in key:
            state[key] = torch.randn_like(value)
    positions = torch.randn(1026, 32)
    state["encoder.embed_positions.weight"] = state["decoder.embed_positions.weight"] = positions
    state["encoder.version"] = torch.tensor([3.0])
    torch.save({"args": argparse.Namespace(arch="bart_base"), "model": state}, tmp_path / "bart.pt")
    report = load_bart(model, tmp_path / "bart.pt")
    after = model.state_dict()
    words = after["encoder.embed_tokens.weight"]
    assert torch.equal(words[:50264], table[:50264]) and torch.equal(words[50264], table[51200])
    assert torch.equal(words[50265:], before["encoder.embed_tokens.weight"][50265:])
    assert torch.equal(after["encoder.embed_positions.weight"][:1024], positions[2:])
    assert torch.equal(after["decoder.layers.1.fc1.weight"], state["decoder.layers.1.fc1.weight"])
    assert "encoder.layers.0.self_attn.c_attn" in report.missing
    with pytest.raises(CheckpointError, match="vocabulary"):
        load_bart(build_model("unival_tiny", 300, image_encoder_name="none", **sizes), tmp_path / "bart.pt")


def test_config_is_plain_json(tmp_path, vocabulary):
    folder = save_folder(tmp_path / "m", make(vocabulary), vocabulary)
    meta = json.loads((folder / "config.json").read_text())
    assert meta["model"]["arch"] == "unival_tiny" and meta["model"]["encoder_embed_dim"] == 32
