"""Models and random batches of pretraining's sizes, as the collator makes them, for the benchmarks of a device.

Images of 384 pixels, 8 frames of 224, 10 s of sound at 16 kHz, 30 tokens in and out. ``mixture`` is an update of
stage 2 (configs/pretrain/stage2.yaml): a group of images and one of videos of as many rows each, joined by the
criterion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unival.core.modalities import MODALITIES, patch_type
from unival.modeling.batch_facts import BatchFacts, SourceFacts, TargetFacts
from unival.modeling.build import build_model
from unival.modeling.joining import as_precision

KINDS = ("image", "video", "audio", "text", "mixture")


@dataclass(frozen=True)
class Sizes:
    """A model and what it reads; ``video`` and ``audio``: names of its networks of these."""

    arch: str
    options: dict[str, Any]
    image: str
    video: str
    audio: str
    vocabulary: int
    pixels: int
    frames: int
    frame_pixels: int
    samples: int
    text: int


BASE = Sizes(
    "unival_base", {"sample_patch_num": 144}, "resnet101", "all_resnext101", "pann_cnn14",
    vocabulary=59457, pixels=384, frames=8, frame_pixels=224, samples=160_000, text=30,
)  # fmt: skip
_NARROW: dict[str, Any] = {
    **dict.fromkeys(("encoder_embed_dim", "decoder_embed_dim"), 32),
    **dict.fromkeys(("encoder_ffn_embed_dim", "decoder_ffn_embed_dim"), 64),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
}
TINY = Sizes(
    "unival_tiny", _NARROW | {"sample_patch_num": 1}, "test_resnet", "frames", "image",
    vocabulary=300, pixels=32, frames=2, frame_pixels=32, samples=8_000, text=6,
)  # fmt: skip


def networks_of(kind: str) -> tuple[str, ...]:
    """Modalities whose networks the model of a kind of batch has. Videos come beside images, as in released models."""
    return {"video": ("image", "video"), "mixture": ("image", "video"), "audio": ("image", "audio")}.get(
        kind, ("image",)
    )


def model_of(sizes: Sizes, networks: tuple[str, ...]) -> nn.Module:
    """Random weights, float32, on the CPU."""
    torch.manual_seed(0)
    named = {
        "resnet_type": sizes.image,
        "video_encoder_name": sizes.video if "video" in networks else None,
        "audio_encoder_name": sizes.audio if "audio" in networks else None,
    }
    return build_model(sizes.arch, sizes.vocabulary, **sizes.options, **named)


def media(modality: str, rows: int, sizes: Sizes, device: str) -> torch.Tensor:
    """Random pixels or samples, float32."""
    made: dict[str, Callable[[], torch.Tensor]] = {
        "image": lambda: torch.randn(rows, 3, sizes.pixels, sizes.pixels, device=device),
        "video": lambda: torch.randn(
            rows, 3, sizes.frames, sizes.frame_pixels, sizes.frame_pixels, device=device
        ),
        "audio": lambda: torch.randn(rows, sizes.samples, device=device) * 0.1,
    }
    return made[modality]()


def batch_of(modality: str, rows: int, sizes: Sizes, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """A batch of one modality with what the host knows of it; tokens are made there, as a collator does."""
    torch.manual_seed(1)
    has_media = modality in MODALITIES
    tokens = torch.randint(4, sizes.vocabulary, (3, rows, sizes.text))
    source, previous, target = tokens.unbind()
    types = torch.full((rows,), patch_type(modality if has_media else None))
    masks = torch.full((rows,), has_media)
    net_input = {
        "src_tokens": source,
        "src_lengths": torch.full((rows,), sizes.text),
        "prev_output_tokens": previous,
        "patch_types": types,
        "patch_masks": masks,
    }
    net_input = {name: value.to(device) for name, value in net_input.items()}
    if has_media:
        net_input[MODALITIES[modality].key] = media(modality, rows, sizes, device)
    facts = BatchFacts(SourceFacts.of(source, types, masks), TargetFacts.of(previous), target.numpy())
    return {
        "net_input": as_precision(net_input, dtype),
        "facts": facts,
        "target": target.to(device),
        "conf": None,
        "allowed": None,
        "nsentences": rows,
        "group": "video" if modality in ("video", "audio") else "image",
    }


def sample_of(kind: str, rows: int, sizes: Sizes, device: str, dtype: torch.dtype) -> Any:
    """What an update of a kind reads: a batch, or the groups of a mixture."""
    if kind != "mixture":
        return batch_of(kind, rows, sizes, device, dtype)
    halves = {"image": rows // 2, "video": rows - rows // 2}
    return [batch_of(modality, count, sizes, device, dtype) for modality, count in halves.items()]
