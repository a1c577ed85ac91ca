"""Training a small CLIP on one's own pictures and captions, to judge pictures of the same kind.

Radford et al., "Learning transferable visual models from natural language supervision" (2021): each picture is
to find its caption among those of the batch, and each caption its picture. The network is open_clip's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unival.core.files import check_file, replacing, write_text
from unival.core.installation import install_extra
from unival.core.options import check_types
from unival.core.seeding import rng_for
from unival.errors import ConfigError
from unival.metrics.images import ClipScorer, new_clip, r_precision

if TYPE_CHECKING:
    from PIL.Image import Image

SHIFT = 4  # pixels that a training picture may move, so that its exact pixels are not learnt
HEAD_WIDTH = 32


@dataclass(frozen=True)
class ClipSettings:
    """Sizes of the network and how to train it."""

    image_size: int = field(default=64, metadata={"help": "side of pictures in pixels"})
    patch_size: int = field(default=8, metadata={"help": "side of a patch in pixels"})
    width: int = field(default=96, metadata={"help": "width of both transformers, a multiple of 32"})
    layers: int = field(default=3, metadata={"help": "layers of both transformers"})
    context_length: int = field(default=24, metadata={"help": "tokens of a caption"})
    updates: int = field(default=400, metadata={"help": "optimiser steps"})
    batch_size: int = field(default=64, metadata={"help": "pairs per step"})
    lr: float = field(default=1e-3, metadata={"help": "highest learning rate"})
    seed: int = field(default=7, metadata={"help": "seed of weights, order and shifts"})

    def __post_init__(self) -> None:
        check_types(self, "option")
        if min(self.width, self.patch_size, self.image_size, self.context_length) < 1:
            raise ConfigError("width, patch_size, image_size and context_length must be above 0")
        if self.width % HEAD_WIDTH or self.image_size % self.patch_size:
            raise ConfigError(
                f"width {self.width} must be a multiple of {HEAD_WIDTH}, image_size {self.image_size} one of "
                f"patch_size {self.patch_size}"
            )
        if min(self.layers, self.updates, self.lr) <= 0 or self.batch_size < 2:
            raise ConfigError("layers, updates and lr must be above 0, batch_size at least 2")

    def architecture(self) -> dict[str, Any]:
        """open_clip's configuration of the network."""
        vision = {"image_size": self.image_size, "patch_size": self.patch_size, "head_width": HEAD_WIDTH}
        text = {"context_length": self.context_length, "vocab_size": 49408, "heads": self.width // HEAD_WIDTH}
        sizes = {"width": self.width, "layers": self.layers}
        return {"embed_dim": self.width, "vision_cfg": {**vision, **sizes}, "text_cfg": {**text, **sizes}}


def train_clip(
    pictures: Sequence[Image],
    captions: Sequence[str],
    out: str | Path,
    settings: ClipSettings,
    device: str = "cpu",
    log: Callable[[int, float], None] = lambda update, loss: None,
) -> Path:
    """Train on pairs, write ``out`` (weights) and, beside it, a JSON file of the architecture (returned).

    Raises ConfigError with fewer pairs than a batch, or without the package open_clip_torch.
    """
    if len(pictures) < settings.batch_size:
        raise ConfigError(f"{len(pictures)} pairs are fewer than batch_size {settings.batch_size}")
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(f"training a CLIP needs open_clip_torch: {install_extra('imagegen')}") from error
    out = Path(out)
    config = out.with_suffix(".json")
    check_file(out)
    write_text(config, json.dumps(settings.architecture(), indent=1) + "\n")
    open_clip.add_model_config(config)
    torch.manual_seed(settings.seed)
    model, preprocess = new_clip(open_clip, config.stem, device)
    pixels = torch.stack([preprocess(picture) for picture in pictures])
    tokens = open_clip.get_tokenizer(config.stem)(list(captions))
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, betas=(0.9, 0.98), weight_decay=0.1)
    model.train()
    total, count = 0.0, 0
    for update in range(settings.updates):
        rows, batch = _batch(pixels, update, settings)
        for group in optimizer.param_groups:
            share = update / settings.updates
            group["lr"] = settings.lr * min((update + 1) / 20, 0.5 * (1 + math.cos(math.pi * share)))
        images = F.normalize(model.encode_image(batch.to(device)), dim=-1)
        texts = F.normalize(model.encode_text(tokens[rows].to(device)), dim=-1)
        logits = model.logit_scale.exp().clamp_max(100) * images @ texts.T
        own = torch.arange(len(rows), device=device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total, count = total + loss.item(), count + 1
        if (update + 1) % 50 == 0 or update + 1 == settings.updates:
            log(update + 1, total / count)
            total, count = 0.0, 0
    with replacing(out) as part:
        torch.save({name: value.cpu() for name, value in model.state_dict().items()}, part)
    return config


def _batch(pixels: Tensor, update: int, settings: ClipSettings) -> tuple[Tensor, Tensor]:
    """Row numbers and shifted pictures of an update; epochs are permutations."""
    size = settings.batch_size
    epoch, place = divmod(update, len(pixels) // size)
    order = rng_for(settings.seed, epoch, 0, "clip order").permutation(len(pixels))
    rows = torch.from_numpy(order[place * size : (place + 1) * size])
    padded = F.pad(pixels[rows], (SHIFT,) * 4, mode="replicate")
    side = pixels.size(-1)
    moves = rng_for(settings.seed, epoch, place, "clip shift").integers(0, 2 * SHIFT + 1, (size, 2)).tolist()
    shifted = [row[:, y : y + side, x : x + side] for row, (y, x) in zip(padded, moves, strict=True)]
    return rows, torch.stack(shifted)


def judge(scorer: ClipScorer, pictures: Sequence[Image], captions: Sequence[str]) -> dict[str, float]:
    """Mean similarity to the own and to the next row's caption, and how often the own one is the nearest."""
    images, texts = scorer.images(pictures), scorer.texts(captions)
    own = F.cosine_similarity(torch.from_numpy(images), torch.from_numpy(texts)).mean()
    other = F.cosine_similarity(torch.from_numpy(images), torch.from_numpy(texts).roll(1, 0)).mean()
    return {"own": float(own), "other": float(other), "r_precision": r_precision(images, texts)}
