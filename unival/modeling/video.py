"""Video network: 3-D ResNeXt (Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and
ImageNet?", CVPR 2018), 32 groups, projection shortcuts. No library has it."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from unival.errors import ConfigError, nearest
from unival.modeling.config import FRAMES, VideoConfig
from unival.modeling.convolutions import AMX, GroupedConv3d, PointwiseConv3d, WideConv3d
from unival.modeling.folding import Chain, added, normed
from unival.modeling.products import search_copies

BLOCKS = {
    14: (1, 1, 1, 1),
    18: (1, 1, 2, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
PLANES = (128, 256, 512, 1024)
GROUPS, EXPANSION = 32, 2
NAMES = tuple(f"{prefix}resnext{depth}" for prefix in ("all_", "") for depth in BLOCKS)


class Block(nn.Module):
    """Bottleneck with a grouped 3x3x3 convolution. In generation the sum may be written over its input
    (:func:`unival.modeling.folding.added`)."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out = planes * EXPANSION
        self.conv1 = PointwiseConv3d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = GroupedConv3d(planes, planes, 3, stride, 1, groups=GROUPS, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = PointwiseConv3d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = Chain(
                PointwiseConv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        pairs = [(self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)]
        return added(pairs, x, residual)


class ResNeXt3D(nn.Module):
    """(B, 3, F, h, w) -> (B, out_channels, ceil(F / 16), ceil(h / 32), ceil(w / 32)) with four stages,
    half those strides with three."""

    def __init__(self, blocks: tuple[int, ...], stages: int) -> None:
        super().__init__()
        self.conv1 = WideConv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        self.stages = stages
        channels = 64
        for i in range(stages):
            stage = []
            for j in range(blocks[i]):
                stage.append(Block(channels, PLANES[i], stride=2 if i and not j else 1))
                channels = PLANES[i] * EXPANSION
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
        self.out_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        # Other processors' grouped convolutions gain nothing by it in training, nor do GPUs' (docs/performance.md).
        if search_copies(x) is not None or (x.device.type == "cpu" and x.dtype == torch.bfloat16 and AMX):
            x = x.contiguous(memory_format=torch.channels_last_3d)
        x = normed([(self.conv1, self.bn1)], x, self.maxpool)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return x


def build_video_encoder(config: VideoConfig) -> ResNeXt3D | None:
    """Return the network, or None without a name or for "frames". Raises ConfigError for an unknown name."""
    name = config.video_encoder_name
    if name in (None, "none", FRAMES):
        return None
    if name not in NAMES:
        known = (*NAMES, FRAMES)
        raise ConfigError(
            f"unknown video_encoder_name '{name}'; known: {', '.join(known)}.{nearest(str(name), known)}"
        )
    depth = int(re.sub(r"\D", "", name))
    return ResNeXt3D(BLOCKS[depth], stages=4 if name.startswith("all_") else 3)
