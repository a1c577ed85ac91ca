"""The ResNets of the published checkpoints and of small recipes, with the names, weights and draws of timm's.

Written here because a start of any command with an image network would import timm for them, which takes longer than
importing torch. Every other network comes from timm (:mod:`unival.modeling.image`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from unival.modeling.convolutions import StridedConv2d
from unival.modeling.folding import Chain, added, normed
from unival.modeling.layers import DropPath, drop_path_rates


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C, h, w) -> (B, expansion * width, h / stride, w / stride).

    In generation the sum may be written over ``x`` (:func:`unival.modeling.folding.added`).
    """

    expansion = 1

    def __init__(
        self, channels: int, width: int, stride: int, shortcut: nn.Module | None, drop: float
    ) -> None:
        super().__init__()
        self.norms: list[str] = []
        for number, convolution in enumerate(self.convolutions(channels, width, stride), start=1):
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(convolution.out_channels))
            self.norms.append(f"bn{number}")
        self.downsample = shortcut
        self.drop_path = DropPath(drop)

    @classmethod
    def convolutions(cls, channels: int, width: int, stride: int) -> list[nn.Conv2d]:
        return [_convolution(channels, width, 3, stride), _convolution(width, width, 3)]

    def last_norm(self) -> nn.BatchNorm2d:
        """Of the branch, before it meets the shortcut."""
        return cast(nn.BatchNorm2d, getattr(self, self.norms[-1]))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        pairs = [
            (getattr(self, f"conv{number}"), getattr(self, norm))
            for number, norm in enumerate(self.norms, start=1)
        ]
        return added(pairs, x, shortcut, self.drop_path)


class Bottleneck(Block):
    """The same with a 3x3 convolution between two of 1x1."""

    expansion = 4

    @classmethod
    def convolutions(cls, channels: int, width: int, stride: int) -> list[nn.Conv2d]:
        last = _convolution(width, width * cls.expansion, 1)
        return [_convolution(channels, width, 1), _convolution(width, width, 3, stride), last]


@dataclass(frozen=True)
class Layout:
    """``blocks``: kind of each stage; ``counts``: how many; ``stem``: widths of its three 3x3 convolutions, where
    shortcuts are pooled before they are projected, or none for one of 7x7; ``widths`` of the stages."""

    blocks: tuple[type[Block], ...]
    counts: tuple[int, ...]
    stem: tuple[int, ...] = ()
    widths: tuple[int, ...] = (64, 128, 256, 512)


_SMALL, _LARGE = (Block,) * 4, (Bottleneck,) * 4
LAYOUTS = {
    "resnet10t": Layout(_SMALL, (1, 1, 1, 1), (24, 32, 64)),
    "resnet14t": Layout(_LARGE, (1, 1, 1, 1), (24, 32, 64)),
    "resnet18": Layout(_SMALL, (2, 2, 2, 2)),
    "resnet18d": Layout(_SMALL, (2, 2, 2, 2), (32, 32, 64)),
    "resnet26": Layout(_LARGE, (2, 2, 2, 2)),
    "resnet34": Layout(_SMALL, (3, 4, 6, 3)),
    "resnet50": Layout(_LARGE, (3, 4, 6, 3)),
    "resnet50d": Layout(_LARGE, (3, 4, 6, 3), (32, 32, 64)),
    "resnet101": Layout(_LARGE, (3, 4, 23, 3)),
    "resnet152": Layout(_LARGE, (3, 8, 36, 3)),
    "test_resnet": Layout(
        (Block, Block, Bottleneck, Block), (1, 1, 1, 1), stem=(16, 16, 32), widths=(32, 48, 48, 96)
    ),
}


class ResNet(nn.Module):
    """``forward_features``: (B, 3, h, w) -> (B, out_channels, h / stride, w / stride).

    The classifier ``fc`` takes no part: released checkpoints hold it. ``drop_path`` is the rate of the last block, to
    which rates rise from 0 at the first.
    """

    def __init__(self, layout: Layout, drop_path: float = 0.0) -> None:
        super().__init__()
        channels = layout.stem[-1] if layout.stem else 64
        self.conv1 = _deep_stem(layout.stem) if layout.stem else _convolution(3, channels, 7, 2)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        rates = iter(drop_path_rates(drop_path, sum(layout.counts)))
        self.stage_channels = []
        stages = zip(layout.blocks, layout.counts, layout.widths, strict=True)
        for stage, (kind, count, width) in enumerate(stages, start=1):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                wide = width * kind.expansion
                projected = stride > 1 or channels != wide
                shortcut = _shortcut(channels, wide, stride, bool(layout.stem)) if projected else None
                blocks.append(kind(channels, width, stride, shortcut, next(rates)))
                channels = wide
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.stage_channels.append(channels)
        self.fc: nn.Module = nn.Linear(channels, 1000)
        self._draw()

    def stages(self) -> list[nn.Sequential]:
        """The stages that are left, first to last."""
        stages = [getattr(self, f"layer{number}") for number in range(1, 5)]
        return [stage for stage in stages if isinstance(stage, nn.Sequential)]

    def forward_features(self, images: Tensor) -> Tensor:
        x = normed([(self.conv1, self.bn1)], images, self.maxpool)
        for stage in self.stages():
            x = stage(x)
        return cast(Tensor, x)

    def _draw(self) -> None:
        """Initial weights: convolutions normal by their fan-out, the last norm of a branch 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.last_norm().weight)


def _convolution(channels: int, width: int, size: int, stride: int = 1) -> nn.Conv2d:
    form = StridedConv2d if stride > 1 else nn.Conv2d
    return form(channels, width, size, stride, padding=size // 2, bias=False)


def _deep_stem(widths: tuple[int, ...]) -> Chain:
    first, second, last = widths
    return Chain(
        _convolution(3, first, 3, 2),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
        _convolution(first, second, 3),
        nn.BatchNorm2d(second),
        nn.ReLU(inplace=True),
        _convolution(second, last, 3),
    )


def _shortcut(channels: int, wide: int, stride: int, pooled: bool) -> Chain:
    if not pooled:
        return Chain(_convolution(channels, wide, 1, stride), nn.BatchNorm2d(wide))
    pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return Chain(pool, _convolution(channels, wide, 1), nn.BatchNorm2d(wide))
