"""Checkpoints, configurations and pickles that are damaged or made to do harm: one line, soon, in little memory."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unival import build_model
from unival.checkpoint import export, load_checkpoint, save_folder
from unival.checkpoint.header import Header
from unival.core.safe_pickle import load_plain
from unival.core.torchfile import read_fairseq
from unival.errors import CheckpointError, ConfigError
from unival.merge.tensorfile import TensorFile
from unival.modeling.config import ModelConfig
from unival.vocabulary import Vocabulary

SMALL: dict[str, Any] = {
    "encoder_embed_dim": 16, "decoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "decoder_ffn_embed_dim": 16,
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "image_encoder_name": "none", "max_source_positions": 64, "max_target_positions": 64,
}  # fmt: skip
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2145\nsize 1234567\n"
MISTAKEN = {
    "Git LFS pointer": LFS,
    "web page": "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
    "is text": "id\timage\tcaption\n1\ta.jpg\ta cat\n",
    "is empty": "",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = Vocabulary.train(["a cat on a mat"], 300, 16, 16)
    model = build_model("unival_tiny", vocab_size=len(vocabulary), **SMALL)
    return save_folder(tmp_path_factory.mktemp("own") / "model", model, vocabulary)


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, Any]:
    """What is in an exported file."""
    path = export.export_fairseq(load_checkpoint(folder), folder.parent / "model.pt")
    return torch.load(path, weights_only=False)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "model"))


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    said = str(caught.value)
    assert "weights_only" not in said and len(said) < 900
    return said


@pytest.mark.parametrize("what", MISTAKEN)
def test_what_is_no_checkpoint_is_called_what_it_is(what: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text(MISTAKEN[what])
    assert what in refused(tmp_path / "model.pt")
    own = copied(folder, tmp_path)
    (own / "model.safetensors").write_text(MISTAKEN[what])
    assert what in refused(own)
    with pytest.raises(CheckpointError, match=what):
        TensorFile(own / "model.safetensors")


def test_an_archive_that_unpacks_to_much_more(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save({**content, "x": torch.zeros(2_000_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert "unpacks to" in refused(tmp_path / "small.pt")


@pytest.mark.parametrize("entry", ["cfg", "args", "extra_state", "task_state"])
def test_shared_references_and_wrong_kinds(entry: str, content: dict[str, Any], tmp_path: Path) -> None:
    shared: Any = {"a": 1}
    for _ in range(60):
        shared = {"a": shared, "b": shared}
    own: dict[str, Any] = {}
    own["self"] = own
    path = tmp_path / "model.pt"
    torch.save({**content, entry: shared}, path)
    assert "stands for more than" in refused(path)
    torch.save({**content, entry: own}, path)
    assert "contains itself" in refused(path)
    for value in (
        [1],
        "x",
        5,
        {"model": 5, "task": "x", "unival": [1], "ema": 3},
        Namespace(arch=5, task=[]),
    ):
        torch.save({**content, entry: value}, path)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert len(str(error)) < 900
        except ConfigError as error:
            assert len(str(error)) < 300


def test_keys_and_tensors_that_ask_for_more_than_there_is(content: dict[str, Any], tmp_path: Path) -> None:
    path, model = tmp_path / "model.pt", content["model"]
    far = {**model, "encoder.layers.99999999.fc1.weight": torch.zeros(1)}
    torch.save({**content, "model": far}, path)
    assert "some are missing" in refused(path)
    torch.save(
        {**content, "model": {**model, "encoder.layer_norm.weight": torch.zeros(1).expand(10**10)}}, path
    )
    assert "repeat a few numbers" in refused(path)
    for value in (5, None, "x", torch.zeros(2).to_sparse()):
        torch.save({**content, "model": {**model, "encoder.layer_norm.weight": value}}, path)
        assert "is no tensor" in refused(path)
    torch.save(content, path)
    assert load_checkpoint(path).weights == "raw"


def test_a_cut_file_quotes_no_advice(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    data = path.read_bytes()
    for part in (data[: len(data) // 2], data[:100], b"\x80\x02" + data[200:400], data[:-30]):
        path.write_bytes(part)
        assert "not a readable checkpoint" in refused(path)


CONFIGS: list[Any] = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"{" * 100_000, b"[" * 100_000, b'{"model": 5}', b'{"model": {}}',
    b'{"model": {"arch": "unival_tiny", "vocab_size": "x"}, "format": 1}', b'{"model": null, "format": "x"}',
    LFS.encode(),
]  # fmt: skip


def test_torn_configurations(folder: Path, tmp_path: Path) -> None:
    own = copied(folder, tmp_path)
    whole = json.loads((own / "config.json").read_text())
    for data in CONFIGS:
        (own / "config.json").write_bytes(data)
        assert "damaged" in refused(own)
        with pytest.raises(CheckpointError):
            Header.read(own)
    for name in ("prompts", "task", "task_options", "decoding", "lineage", "weights", "vocabulary", "format"):
        for value in (5, [1], "x", [[1]], {"a": {"b": 1}}):
            (own / "config.json").write_text(json.dumps({**whole, name: value}))
            try:
                Header.read(own)
            except (CheckpointError, ConfigError) as error:
                assert len(str(error)) < 500
    for name in whole["model"]:
        for value in (10**30, "x", [1]):
            try:
                ModelConfig.from_dict({**whole["model"], name: value})
            except (ConfigError, TypeError) as error:
                assert len(str(error)) < 500


def test_sizes_that_no_machine_holds(folder: Path) -> None:
    for options in (
        {"encoder_layers": 10**8},
        {"encoder_embed_dim": 2**19, "decoder_embed_dim": 2**19},
        {"max_source_positions": 10**9},
        {"token_bucket_size": 10**6},
        {"token_bucket_size": 0},
        {"image_bucket_size": -3},
    ):
        with pytest.raises(ConfigError, match=r"(is the most|are the most|at least 1 is needed)"):
            ModelConfig.from_options("unival_tiny", 1000, **options)


def test_the_folder_of_a_run_names_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_last.pt").write_bytes(b"x")
    (tmp_path / "checkpoint_best.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"did you mean '.*checkpoint_best\.pt'"):
        Header.read(tmp_path)


def test_a_header_that_is_longer_than_any_file(folder: Path, tmp_path: Path) -> None:
    own = copied(folder, tmp_path)
    for length in (2**63, 2**64 - 1, 10**9, 0, 5):
        (own / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" + b" " * 100)
        assert "model.safetensors" in refused(own)
        if length != 5:
            with pytest.raises(CheckpointError, match="not a readable safetensors file"):
                TensorFile(own / "model.safetensors")
    header = json.dumps({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode()
    (own / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match="makes no sense"):
        TensorFile(own / "model.safetensors")


class _Calls:
    def __reduce__(self) -> Any:
        return np.lib.format.open_memmap, ("ran", "w+", "f4", (1,))


def test_a_pickle_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="it asks for numpy"):
        load_plain(pickle.dumps(_Calls()))
    for name in (b"cnumpy.testing\nscalar\n.", b"cnumpy.ctypeslib\ndtype\n."):
        with pytest.raises(pickle.UnpicklingError, match="it asks for numpy"):
            load_plain(name)
    assert not (tmp_path / "ran").exists()
    assert load_plain(pickle.dumps({"a": np.float64(0.5), "b": [np.int64(3)]})) == {"a": 0.5, "b": [3]}
    shared: Any = [1]
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(pickle.UnpicklingError, match="stands for more than"):
        load_plain(pickle.dumps(shared))


def test_read_fairseq_still_reads_what_is_right(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(
        {**content, "cfg": {"model": Namespace(arch="unival_tiny"), "task": None}}, tmp_path / "model.pt"
    )
    assert read_fairseq(tmp_path / "model.pt").arch == "unival_tiny"
