"""Tiny models as checkpoint folders and fairseq files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from unival import build_model
from unival.checkpoint import save_folder
from unival.merge.tensorfile import TensorFile
from unival.vocabulary import Vocabulary

SMALL: dict[str, Any] = {
    "encoder_embed_dim": 16,
    "decoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "decoder_ffn_embed_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "image_encoder_name": "resnet",
    "resnet_type": "resnet10t",
    "image_bucket_size": 8,
    "code_image_size": 32,
    "token_bucket_size": 16,
    "max_source_positions": 64,
    "max_target_positions": 64,
}
OPTIONS = {"patch_image_size": 32, "max_image_size": 32, "max_src_length": 20, "max_tgt_length": 12}


def make_model(vocabulary: Vocabulary, seed: int, near: torch.nn.Module | None = None, **options: Any):
    """A random model, or one a small step away from ``near``, with BatchNorm statistics and counters moved."""
    torch.manual_seed(seed)
    model = build_model("unival_tiny", len(vocabulary), **{**SMALL, **options}).eval()
    with torch.no_grad():
        if near is not None:
            theirs = dict(near.named_parameters())
            for key, value in model.named_parameters():
                if key in theirs:
                    value.copy_(theirs[key] + 0.02 * torch.randn_like(value))
        for key, value in model.state_dict().items():
            if "running_var" in key:
                value.uniform_(0.5, 1.5)
            elif "running_mean" in key:
                value.normal_()
            elif "num_batches" in key:
                value.fill_(seed + 3)
    return model


def folder_of(path: Path, model: Any, vocabulary: Vocabulary, task: str = "caption", **extra: Any) -> Path:
    about = {"task": {"name": task, "modality": "image"}, "task_options": dict(OPTIONS), **extra}
    return save_folder(path, model, vocabulary, extra=about)


def fairseq_of(
    path: Path, model: Any, vocabulary: Vocabulary, ema: Any = None, task: str = "caption", zipped: bool = True,
    lineage: list[str] | None = None,
) -> Path:  # fmt: skip
    """What fairseq's trainer writes, with our task's state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ours: dict[str, Any] = {
        "vocabulary": vocabulary.to_dict(),
        "task": {"name": task, "modality": "image"},
        "options": OPTIONS,
    }
    if lineage is not None:
        ours["lineage"] = lineage
    content: dict[str, Any] = {
        "args": None,
        "cfg": {"model": argparse.Namespace(arch="unival_tiny", **model.config.options())},
        "model": model.state_dict(),
        "task_state": {"unival": ours},
        "extra_state": {"epoch": 2},
        "last_optimizer_state": {"state": torch.zeros(1000)},
    }
    if ema is not None:
        content["extra_state"]["ema"] = ema.state_dict()
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    file = TensorFile(folder / "model.safetensors")
    return {key: file.read(key) for key in file.specs}
