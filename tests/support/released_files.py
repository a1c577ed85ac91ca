"""Files with the structure of the released checkpoints, and a small model and media to put into them."""

from __future__ import annotations

import argparse
import enum
import sys
import types
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from unival.checkpoint import save_folder
from unival.modeling.build import build_model
from unival.vocabulary import Vocabulary

SMALL: dict[str, Any] = {
    "encoder_embed_dim": 32,
    "decoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "decoder_ffn_embed_dim": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "resnet_type": "resnet18",
    "image_bucket_size": 16,
}

OPTIONS = {
    "patch_image_size": 32,
    "patch_frame_size": 32,
    "num_frames": 2,
    "max_image_size": 64,
    "sample_rate": 16000,
    "max_audio_len": 8000,
}


def small_model(vocab_size: int, seed: int = 0, **options: Any) -> torch.nn.Module:
    """A random model whose output depends on its input: wide weights, BatchNorm that sees the media."""
    torch.manual_seed(seed)
    model = build_model("unival_tiny", vocab_size=vocab_size, **{**SMALL, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_images" not in name:
                parameter.mul_(8 if "embed_videos" not in name and "embed_audios" not in name else 2)
    return model.eval()


def tiny_world(folder: Path) -> Path:
    """Write pictures, a clip, a sound and a vocabulary; returns the folder."""
    import av

    rng = np.random.default_rng(0)
    for number, name in enumerate("abcde"):
        picture = Image.new(
            "RGB", (60 + 10 * number, 40 + 5 * number), tuple(rng.integers(0, 255, 3).tolist())
        )
        corner = rng.integers(0, 20, 2).tolist()
        ImageDraw.Draw(picture).ellipse([*corner, corner[0] + 20, corner[1] + 15], fill=name_colour(number))
        picture.save(folder / f"{name}.png")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for step in range(6):
            pixels = np.full((32, 48, 3), 40 * step, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = np.sin(np.arange(6000) * 0.3) * np.linspace(0, 20000, 6000)
        file.writeframes(tone.astype("<i2").tobytes())
    texts = ["what does the image describe? a red circle on a blue square", "how many yes no maybe two"] * 3
    Vocabulary.train(texts, 300, num_codes=16, num_bins=40).save(folder / "vocabulary")
    return folder


def save_model(root: Path, media: Path) -> Path:
    """Write ``root/model``, a model of all modalities with the vocabulary in ``media``."""
    vocabulary = Vocabulary.load(media / "vocabulary")
    networks = {"video_encoder_name": "all_resnext14", "audio_encoder_name": "pann_cnn6"}
    # short outputs: what is tested does not need long ones
    decoding = {"settings": {"beam": 2, "max_len_b": 8, "no_repeat_ngram_size": 3}}
    extra = {"task": {"name": "caption"}, "task_options": OPTIONS, "decoding": decoding}
    return save_folder(root / "model", small_model(len(vocabulary), **networks), vocabulary, extra=extra)


def name_colour(number: int) -> str:
    return ("red", "lime", "blue", "yellow", "white")[number]


@contextmanager
def engine_classes() -> Iterator[Any]:
    """Modules named like the engine's, so that objects in a file are pickled under the engine's names.

    They are gone afterwards: whatever reads the file cannot import them.
    """
    made = {
        name: types.ModuleType(name)
        for name in (
            "fairseq",
            "fairseq.data",
            "fairseq.data.dictionary",
            "fairseq.dataclass",
            "fairseq.dataclass.constants",
            "fairseq.dataclass.configs",
            "fairseq.meters",
        )
    }

    def put(module: str, name: str, kind: type) -> type:
        kind.__module__, kind.__qualname__ = module, name
        setattr(made[module], name, kind)
        return kind

    classes = argparse.Namespace(
        Dictionary=put("fairseq.data.dictionary", "Dictionary", type("Dictionary", (), {})),
        CommonConfig=put("fairseq.dataclass.configs", "CommonConfig", type("CommonConfig", (), {})),
        AverageMeter=put("fairseq.meters", "AverageMeter", type("AverageMeter", (), {})),
        Choices=put("fairseq.dataclass.constants", "Choices", enum.Enum("Choices", {"c10d": "c10d"})),
    )
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "fairseq"}
    for name in before:
        del sys.modules[name]
    sys.modules.update(made)
    try:
        yield classes
    finally:
        for name in made:
            del sys.modules[name]
        sys.modules.update(before)


def released(
    path: Path,
    state: dict[str, torch.Tensor],
    arch: str,
    task: str,
    model_options: dict[str, Any],
    task_options: dict[str, Any] | None = None,
    ema: dict[str, torch.Tensor] | None = None,
    config: Any = None,
) -> Path:
    """Write a file as fairseq 1.0.0a0 does: no vocabulary, weight paths of another machine, own classes."""
    with engine_classes() as engine:
        dictionary, common, meter = engine.Dictionary(), engine.CommonConfig(), engine.AverageMeter()
        dictionary.symbols, common.seed, meter.sum = ["<s>"], 7, 1.5
        model = argparse.Namespace(
            arch=arch,
            task=task,
            _name=arch,
            resnet_model_path="/data/weights/resnet101.pth",
            video_model_path="/data/weights/resnext.pth",
            ddp_backend=engine.Choices.c10d,
            **model_options,
        )
        section = {"_name": task, "data": "/data/train.tsv", "bpe_dir": "/data/BPE", **(task_options or {})}
        extra: dict[str, Any] = {"train_iterator": {"epoch": 3}, "val_loss": 1.0, "meter": meter}
        if ema is not None:
            extra["ema"] = ema
        content = {
            "args": None,
            "cfg": config or {"_name": None, "common": common, "task": section, "model": model},
            "model": state,
            "criterion": None,
            "optimizer_history": [
                {"optimizer_name": "FairseqAdam", "num_updates": 5, "lr_scheduler_state": {}}
            ],
            "task_state": {"source_dictionary": dictionary},
            "extra_state": extra,
            "last_optimizer_state": {},
        }
        torch.save(content, path)
    return path
