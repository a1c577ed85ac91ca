"""Training a VQGAN on one's own pictures: nearest code vectors and a pixel loss.

The codebook of van den Oord et al., "Neural discrete representation learning" (2017): a place becomes its nearest
code vector, gradients pass straight through, code vectors follow the mean of their places (appendix A.1), and
codes that fall out of use are restarted at places of the batch (after Dhariwal et al., "Jukebox", 2020). The
published network scores codes linearly; so does the result here, since the nearest vector is the one of the highest
2 e.z - e.e. There is neither a perceptual loss nor a discriminator (both need weights or much longer training),
so reconstructions are smoother than those of the published network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unival.core.seeding import rng_for
from unival.errors import ConfigError, DataError
from unival.imagegen.vqgan import GumbelQuantizer, Vqgan

PERIOD = 50  # updates between two looks at the loss
RESTARTS = 20  # updates between two looks at unused codes
FREE = 0.1  # share of the updates without codes, for an encoder whose places are worth grouping
SETTLED = 0.8  # share of the updates after which no code is restarted


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The learning rate warms up over 5 % of the updates and falls to zero along a cosine."""

    updates: int = field(default=2000, metadata={"help": "optimiser steps"})
    batch_size: int = field(default=16, metadata={"help": "pictures per step"})
    lr: float = field(default=1e-3, metadata={"help": "highest learning rate"})
    commitment: float = field(
        default=0.25, metadata={"help": "weight of the distance of places to their codes"}
    )
    decay: float = field(default=0.95, metadata={"help": "what a code vector keeps of itself per step"})
    seed: int = field(default=7, metadata={"help": "seed of weights, order and noise"})

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "lr"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.commitment < 0 or not 0 <= self.decay < 1:
            raise ConfigError(
                f"commitment must not be below 0, decay be in [0, 1); got {self.commitment} and {self.decay}"
            )

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
    codebook = Codebook(model.quantize, settings)
    learnt = [p for p in model.parameters() if not any(p is own for own in model.quantize.parameters())]
    optimizer = torch.optim.AdamW(learnt, settings.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    model.train().to(memory_format=torch.channels_last)  # a third faster on a CPU
    total, count = 0.0, 0
    for update in range(settings.updates):
        batch = to_range(images[_batch(len(images), update, settings)]).to(device)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(update)
        places = model.quant_conv(model.encoder(batch))
        vectors, distance = codebook.choose(places, update)
        difference = model.pictures(vectors) - batch
        loss = difference.abs().mean() + difference.square().mean()
        if not math.isfinite(loss.item()):
            raise DataError(f"the loss of update {update} is not finite: lower the learning rate")
        optimizer.zero_grad()
        (loss + settings.commitment * distance).backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        total, count = total + loss.item(), count + 1
        if (update + 1) % PERIOD == 0 or update + 1 == settings.updates:
            log(update + 1, total / count)
            total, count = 0.0, 0
    codebook.write()
    model.eval()


class Codebook:
    """Code vectors in training; ``write`` leaves them in the network with the linear scores of the nearest one."""

    def __init__(self, quantize: GumbelQuantizer, settings: TrainSettings) -> None:
        self.quantize, self.settings = quantize, settings
        self.vectors = quantize.embed.weight.detach().clone()
        self.sums, self.counts = (
            self.vectors.clone(),
            torch.ones(len(self.vectors), device=self.vectors.device),
        )
        self.used = torch.zeros_like(self.counts)
        self.noise = torch.Generator(self.vectors.device).manual_seed(settings.seed)
        self.begun = False

    def choose(self, places: Tensor, update: int) -> tuple[Tensor, Tensor]:
        """Nearest vectors of places (N, d, a, b), with the gradient of the places, and their mean squared distance."""
        if update < FREE * self.settings.updates:
            return places, places.new_zeros(())
        flat = places.detach().movedim(1, -1).reshape(-1, places.size(1))
        if not self.begun:
            self._restart(torch.ones_like(self.used, dtype=torch.bool), flat)
            self.begun = True
        codes = self.nearest(flat)
        chosen = self.vectors[codes].view(places.movedim(1, -1).shape).movedim(-1, 1)
        distance = (places - chosen).square().mean()
        self._follow(flat, codes)
        if (update + 1) % RESTARTS == 0 and update < SETTLED * self.settings.updates:
            self._restart(self.used == 0, flat)
            self.used.zero_()
        return places + (chosen - places).detach(), distance

    def nearest(self, flat: Tensor) -> Tensor:
        return (2 * flat @ self.vectors.T - self.vectors.square().sum(1)).argmax(1)

    def _follow(self, flat: Tensor, codes: Tensor) -> None:
        counts = torch.bincount(codes, minlength=len(self.vectors)).to(flat)
        keep = self.settings.decay
        self.counts.mul_(keep).add_(counts, alpha=1 - keep)
        self.sums.mul_(keep).add_(torch.zeros_like(self.sums).index_add_(0, codes, flat), alpha=1 - keep)
        self.used += counts
        alive = self.counts > 1e-3
        self.vectors[alive] = self.sums[alive] / self.counts[alive].unsqueeze(1)

    def _restart(self, which: Tensor, flat: Tensor) -> None:
        """Put code vectors on random places of a batch."""
        rows = torch.randint(len(flat), (int(which.sum()),), generator=self.noise, device=flat.device)
        self.vectors[which] = self.sums[which] = flat[rows]
        self.counts[which] = 1.0

    @torch.no_grad()
    def write(self) -> None:
        self.quantize.embed.weight.copy_(self.vectors)
        self.quantize.proj.weight.copy_(2 * self.vectors[:, :, None, None])
        assert self.quantize.proj.bias is not None
        self.quantize.proj.bias.copy_(-self.vectors.square().sum(1))


def _batch(size: int, update: int, settings: TrainSettings) -> Tensor:
    """Row numbers of an update: slices of a permutation per epoch."""
    per_epoch = max(1, size // settings.batch_size)
    epoch, place = divmod(update, per_epoch)
    order = rng_for(settings.seed, epoch, 0, "codebook order").permutation(size)
    return torch.from_numpy(order[place * settings.batch_size : (place + 1) * settings.batch_size])


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
