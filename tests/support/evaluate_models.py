"""Tiny random models, and the program in a process of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import torch

from tests.support.forks import forks
from unival import build_model
from unival.checkpoint import save_folder
from unival.media import read_image
from unival.media.transforms_image import image_eval
from unival.vocabulary import Vocabulary

SMALL: dict[str, Any] = {
    "encoder_embed_dim": 32,
    "decoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "decoder_ffn_embed_dim": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "resnet_type": "test_resnet",
}
OPTIONS = {
    "patch_image_size": 32,
    "patch_frame_size": 32,
    "num_frames": 2,
    "max_image_size": 64,
    "sample_rate": 16000,
    "max_audio_len": 16000,
}


def make_checkpoint(folder: Path, world: Path, task: str, **options: Any) -> Path:
    vocabulary = Vocabulary.load(world / "vocabulary")
    torch.manual_seed(0)
    model = build_model(
        "unival_tiny",
        vocab_size=len(vocabulary),
        video_encoder_name="all_resnext18",
        audio_encoder_name="pann_cnn6",
        **SMALL,
    )
    # An untrained model says the same about every picture; wide weights and real statistics change that.
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        images = [read_image(path) for path in sorted((world / "images").iterdir())[:24]]
        half = (0.5, 0.5, 0.5)
        model.train()
        model.encoder.embed_images.forward_features(
            torch.stack([image_eval(image, 32, half, half) for image in images])
        )
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_images" not in name:
                parameter.mul_(8)
    task_entry = {"task": {"name": task, "modality": "image"}, "task_options": {**OPTIONS, **options}}
    return save_folder(folder / "model", model, vocabulary, extra=task_entry)


def unival(
    *words: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [*forks().program, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
