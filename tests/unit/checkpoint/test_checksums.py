"""Bits that change after writing are found at reading; ``unival doctor CHECKPOINT``."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from unival import build_model
from unival.checkpoint import export, load_checkpoint, save_folder
from unival.cli import main
from unival.core.checksum import RESERVED, verify
from unival.errors import CheckpointError
from unival.merge.recipe import MergeRecipe
from unival.merge.run import merge
from unival.vocabulary import Vocabulary

SMALL = {
    "encoder_embed_dim": 16, "decoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "decoder_ffn_embed_dim": 16,
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "image_encoder_name": "none",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vocabulary = Vocabulary.train(["a cat on a mat"], 300, 16, 16)
    return save_folder(
        tmp_path / "model", build_model("unival_tiny", vocab_size=len(vocabulary), **SMALL), vocabulary
    )


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def test_flipped_bits_of_a_folder(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    assert verify(weights)
    merged = merge(MergeRecipe(str(tmp_path / "merged"), (str(folder), {"path": str(folder), "name": "b"})))  # type: ignore[arg-type]
    assert verify(merged[0].folder / "model.safetensors")
    size = weights.stat().st_size
    for place in (size - 1, size // 2, size - 4000):
        flip(weights, place)
        with pytest.raises(CheckpointError, match="not those that were written"):
            load_checkpoint(folder)
        with pytest.raises(CheckpointError, match="not those that were written"):
            merge(MergeRecipe(str(tmp_path / "m2"), (str(folder), str(merged[0].folder))))  # type: ignore[arg-type]
        flip(weights, place)
    load_checkpoint(folder)


def test_tensors_that_were_exchanged(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"]["sha256"] != RESERVED
    a, b = (header[f"encoder.layers.0.fc{k}.weight"]["data_offsets"] for k in (1, 2))
    content = bytearray(data[8 + length :])
    content[a[0] : a[1]], content[b[0] : b[1]] = content[b[0] : b[1]], content[a[0] : a[1]]
    weights.write_bytes(data[: 8 + length] + content)
    with pytest.raises(CheckpointError, match="not those that were written"):
        load_checkpoint(folder)


def test_flipped_bits_of_a_file(folder: Path, tmp_path: Path) -> None:
    path = export.export_fairseq(load_checkpoint(folder), tmp_path / "model.pt")
    assert verify(path)
    flip(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_the_doctor_looks_at_a_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "checksums        right" in printed and "all finite" in printed
    loaded = load_checkpoint(folder)
    with torch.no_grad():
        loaded.model.encoder.layer_norm.weight[3] = float("nan")
    save_folder(folder, loaded.model, loaded.vocabulary)
    assert main(["doctor", str(folder)]) == 1
    assert "NaN or infinite in 1 tensors: encoder.layer_norm.weight" in capsys.readouterr().out
    flip(folder / "model.safetensors", -1)
    assert main(["doctor", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_files_without_a_checksum_are_read(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    assert not verify(weights)
    load_checkpoint(folder)


def test_equal_models_make_equal_files(folder: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(folder)
    for number in range(6):
        again = save_folder(tmp_path / str(number), loaded.model, loaded.vocabulary)
        assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
