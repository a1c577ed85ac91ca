"""VQGAN with a Gumbel quantiser: pictures to a grid of code numbers and back.

Esser et al., "Taming transformers for high-resolution image synthesis" (CVPR 2021). Module names are those of
the published GumbelVQ files, so that their weights fit without conversion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.errors import ConfigError


@dataclass(frozen=True)
class VqganConfig:
    """Sizes of the network; the defaults are those of the published ``vqgan_gumbel_f8``.

    ``attn_resolutions`` counts from ``resolution`` (pixels), which only decides where attention stands:
    pictures may have any size that ``2 ** (len(ch_mult) - 1)`` divides. ``groups``: of the group norms.
    """

    ch: int = field(default=128, metadata={"help": "channels of the first level"})
    ch_mult: tuple[int, ...] = field(
        default=(1, 1, 2, 4),
        metadata={"help": "channels of each level in multiples of ch; four levels: 8 x 8"},
    )
    num_res_blocks: int = field(default=2, metadata={"help": "blocks per level of the encoder"})
    attn_resolutions: tuple[int, ...] = field(
        default=(32,), metadata={"help": "feature sizes with attention; the middle has it anyway"}
    )
    resolution: int = field(default=256, metadata={"help": "picture size that attn_resolutions count from"})
    z_channels: int = field(default=256, metadata={"help": "channels of the codes' vectors"})
    embed_dim: int = field(default=256, metadata={"help": "the same, in the published files"})
    n_embed: int = field(default=8192, metadata={"help": "number of codes"})
    groups: int = field(default=32, metadata={"help": "groups of the group norms"})

    def __post_init__(self) -> None:
        for name in ("ch_mult", "attn_resolutions"):
            object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
        odd = [self.ch * factor for factor in self.ch_mult if self.ch * factor % self.groups]
        if odd or not self.ch_mult:
            raise ConfigError(f"groups {self.groups} must divide all widths, not {odd}: change ch or groups")
        if self.z_channels != self.embed_dim:
            raise ConfigError(
                f"z_channels {self.z_channels} and embed_dim {self.embed_dim} must be equal in a GumbelVQ"
            )

    @property
    def stride(self) -> int:
        """Pixels of one code along a side."""
        return int(2 ** (len(self.ch_mult) - 1))


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions around a shortcut: (N, c_in, h, w) -> (N, c_out, h, w)."""

    def __init__(self, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(c_in, groups)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = _norm(c_out, groups)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Self-attention with one head over all places: (N, c, h, w) -> the same."""

    def __init__(self, c: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(c, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class Downsample(nn.Module):
    """Halve both sides; the border is padded right and below only, as in the published networks."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double both sides."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """All blocks at one resolution, each followed by attention where the level has it, then a resampling."""

    def __init__(self, c_in: int, c_out: int, blocks: int, attention: bool, groups: int) -> None:
        super().__init__()
        widths = [c_in] + [c_out] * (blocks - 1)
        self.block = nn.ModuleList(ResBlock(width, c_out, groups) for width in widths)
        self.attn = nn.ModuleList(AttnBlock(c_out, groups) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class Middle(nn.Module):
    """The two blocks and the attention at the lowest resolution."""

    def __init__(self, c: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(c, c, groups)
        self.attn_1 = AttnBlock(c, groups)
        self.block_2 = ResBlock(c, c, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pictures (N, 3, h, w) in [-1, 1] -> (N, z_channels, h / stride, w / stride)."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        c = config
        widths = [c.ch, *(c.ch * factor for factor in c.ch_mult)]
        self.conv_in = nn.Conv2d(3, c.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            attention = c.resolution >> i in c.attn_resolutions
            level = Level(c_in, c_out, c.num_res_blocks, attention, c.groups)
            if i < len(c.ch_mult) - 1:
                level.downsample = Downsample(c_out)
            self.down.append(level)
        self.mid = Middle(widths[-1], c.groups)
        self.norm_out = _norm(widths[-1], c.groups)
        self.conv_out = nn.Conv2d(widths[-1], c.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(N, z_channels, a, b) -> pictures (N, 3, a * stride, b * stride), about in [-1, 1]."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        c = config
        widths = [c.ch * factor for factor in c.ch_mult]
        self.conv_in = nn.Conv2d(c.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], c.groups)
        levels = []
        for i, c_out in enumerate(widths):  # level 0 has the highest resolution and runs last
            c_in = widths[min(i + 1, len(widths) - 1)]
            attention = c.resolution >> i in c.attn_resolutions
            level = Level(c_in, c_out, c.num_res_blocks + 1, attention, c.groups)
            if i > 0:
                level.upsample = Upsample(c_out)
            levels.append(level)
        self.up = nn.ModuleList(levels)
        self.norm_out = _norm(widths[0], c.groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(list(self.up)):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class GumbelQuantizer(nn.Module):
    """Scores every code at every place; a place is the code vector of the highest score."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.z_channels, config.n_embed, 1)
        self.embed = nn.Embedding(config.n_embed, config.embed_dim)


class Vqgan(nn.Module):
    """Encoder, quantiser and decoder; see :meth:`encode` and :meth:`decode`."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.sizes = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = GumbelQuantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    def scores(self, images: Tensor) -> Tensor:
        """Logits of the codes (N, n_embed, h / stride, w / stride) of pictures (N, 3, h, w) in [-1, 1].

        Raises ConfigError for sizes that the stride does not divide.
        """
        if images.size(-1) % self.sizes.stride or images.size(-2) % self.sizes.stride:
            raise ConfigError(
                f"pictures of {images.size(-1)} x {images.size(-2)} pixels: give sides that "
                f"{self.sizes.stride} divides"
            )
        return cast(Tensor, self.quantize.proj(self.quant_conv(self.encoder(images))))

    def pictures(self, vectors: Tensor) -> Tensor:
        """Pictures (N, 3, h, w) of code vectors (N, embed_dim, h / stride, w / stride)."""
        return cast(Tensor, self.decoder(self.post_quant_conv(vectors)))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Codes (N, h / stride, w / stride) int64: at each place the one of highest score, without noise."""
        return self.scores(images).argmax(dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Pictures (N, 3, h, w) float32 in [-1, 1] of codes (N, a, b) int64."""
        vectors = self.quantize.embed(codes).permute(0, 3, 1, 2)
        return self.pictures(vectors).clamp(-1, 1)


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)
