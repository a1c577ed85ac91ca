"""Training a VQGAN on one's own pictures: Gumbel-softmax codes and a pixel loss.

The discrete autoencoder of Ramesh et al., "Zero-shot text-to-image generation" (2021, appendix A): codes are
relaxed by Gumbel noise at a temperature that falls during training. Codes that fall out of use are restarted
(after Dhariwal et al., "Jukebox", 2020), or a few codes would win all places. There is neither a perceptual
loss nor a discriminator (both need weights or much longer training), so reconstructions are smoother than those
of the published network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unival.errors import ConfigError, DataError
from unival.imagegen.vqgan import GumbelQuantizer, Vqgan
from unival.seeding import rng_for

PERIOD = 50  # updates between two looks at the loss and at unused codes
SETTLED = 0.6  # share of the updates after which temperature and set of codes stay as they are
JITTER = 0.2  # of a restarted code, in standard deviations


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The learning rate warms up over 5 % of the updates and falls to zero along a cosine."""

    updates: int = field(default=2000, metadata={"help": "optimiser steps"})
    batch_size: int = field(default=16, metadata={"help": "pictures per step"})
    lr: float = field(default=1e-3, metadata={"help": "highest learning rate"})
    first_temperature: float = field(default=1.0, metadata={"help": "temperature of the codes at the start"})
    last_temperature: float = field(
        default=0.0625, metadata={"help": "temperature from 60 % of the updates on"}
    )
    seed: int = field(default=7, metadata={"help": "seed of weights, order and noise"})

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "lr", "first_temperature", "last_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")

    def temperature(self, update: int) -> float:
        """Temperature at an update: geometric from the first to the last, which it reaches at 60 %."""
        share = min(update / (SETTLED * self.updates), 1.0)
        return float(self.first_temperature * (self.last_temperature / self.first_temperature) ** share)

    def rate(self, update: int) -> float:
        """Learning rate at an update."""
        warmup = max(1, self.updates // 20)
        cosine = 0.5 * (1 + math.cos(math.pi * update / self.updates))
        return self.lr * min((update + 1) / warmup, cosine)


@dataclass(frozen=True)
class Reconstruction:
    """How well codes keep pictures: mean absolute and squared error in [-1, 1] units, and codes in use.

    ``baseline_*``: the errors of the training pictures' mean, the best picture without any code.
    """

    l1: float
    mse: float
    baseline_l1: float
    baseline_mse: float
    codes_used: int


def train(
    model: Vqgan,
    images: Tensor,
    settings: TrainSettings,
    log: Callable[[int, float], None] = lambda update, loss: None,
) -> None:
    """Train in place on pictures (N, 3, h, w) uint8; the same on every run with the same settings.

    ``log`` is called with (update, mean loss since the last call) every PERIOD updates.
    Raises DataError when the loss is not finite.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    noise = torch.Generator(device).manual_seed(settings.seed)
    model.train().to(memory_format=torch.channels_last)  # a third faster on a CPU
    total, count = 0.0, 0
    used = torch.zeros(model.sizes.n_embed, device=device)
    for update in range(settings.updates):
        batch = to_range(images[_batch(len(images), update, settings)]).to(device)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(update)
        scores = model.scores(batch).float()
        weights = _relaxed(scores, settings.temperature(update), noise)
        difference = model.pictures(model.quantize.vectors(weights)) - batch
        loss = difference.abs().mean() + difference.square().mean()
        if not math.isfinite(loss.item()):
            raise DataError(f"the loss of update {update} is not finite: lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        used += torch.bincount(scores.argmax(1).flatten(), minlength=len(used))
        total, count = total + loss.item(), count + 1
        if (update + 1) % PERIOD == 0 or update + 1 == settings.updates:
            log(update + 1, total / count)
            if update < SETTLED * settings.updates:
                restart_unused(model.quantize, used, noise)
            total, count = 0.0, 0
            used.zero_()
    model.eval()


def _batch(size: int, update: int, settings: TrainSettings) -> Tensor:
    """Row numbers of an update: slices of a permutation per epoch."""
    per_epoch = max(1, size // settings.batch_size)
    epoch, place = divmod(update, per_epoch)
    order = rng_for(settings.seed, epoch, 0, "codebook order").permutation(size)
    return torch.from_numpy(order[place * settings.batch_size : (place + 1) * settings.batch_size])


def _relaxed(scores: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    """Gumbel-softmax weights (N, n_embed, a, b) of scores of that shape."""
    gumbel = -torch.empty_like(scores).exponential_(generator=noise).log()
    return ((scores + gumbel) / temperature).softmax(dim=1)


@torch.no_grad()
def restart_unused(quantize: GumbelQuantizer, used: Tensor, noise: torch.Generator) -> None:
    """Turn codes that no place chose into noisy copies of ones that many did; used: (n_embed,) counts."""
    unused = (used == 0).nonzero().squeeze(1)
    if not 0 < len(unused) < len(used):
        return
    parents = torch.multinomial(used, len(unused), replacement=True, generator=noise)
    for weight in (quantize.proj.weight, quantize.embed.weight):
        copies = weight[parents]
        weight[unused] = copies + JITTER * copies.std() * torch.randn(
            copies.shape, generator=noise, device=copies.device
        )
    assert quantize.proj.bias is not None
    quantize.proj.bias[unused] = quantize.proj.bias[parents]


def to_range(images: Tensor) -> Tensor:
    """uint8 pixels to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def evaluate(model: Vqgan, images: Tensor, train_images: Tensor, batch_size: int = 64) -> Reconstruction:
    """Reconstruct pictures (N, 3, h, w) uint8 from their codes, beside the mean of the training pictures."""
    device = next(model.parameters()).device
    mean = train_images.float().mean(0) / 127.5 - 1
    sums = np.zeros(4)
    used: set[int] = set()
    for batch in images.split(batch_size):
        pictures = to_range(batch)
        codes = model.encode(pictures.to(device))
        used |= set(codes.flatten().tolist())
        for k, guess in enumerate((model.decode(codes).cpu(), mean)):
            difference = guess - pictures
            sums[2 * k : 2 * k + 2] += difference.abs().sum().item(), difference.square().sum().item()
    l1, mse, base_l1, base_mse = (sums / images.numel()).tolist()
    return Reconstruction(l1, mse, base_l1, base_mse, len(used))
