"""Front ends: what stands between a modality's tensor and the joined sequence, one class per kind of grid.

A front end is a view, not a module: its network, projection, norm and position table are registered by the
encoder under the reference's names, so that state dicts stay as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.errors import DataError
from unival.modeling.audio import build_audio_encoder
from unival.modeling.config import AudioConfig, ImageConfig, ModelConfig, VideoConfig
from unival.modeling.image import build_image_encoder
from unival.modeling.layers import channels_last
from unival.modeling.position import grid_positions
from unival.modeling.regions import region
from unival.modeling.video import build_video_encoder


def build_networks(config: ModelConfig) -> dict[str, nn.Module | None]:
    """Return modality name -> network with ``out_channels``, None where the configuration has none. Videos and
    sound may have that of the images."""
    built = {
        "image": build_image_encoder(config.image),
        "video": build_video_encoder(config.video),
        "audio": build_audio_encoder(config.audio),
    }
    return {name: built[config.network_of(name)] for name in built}


@region(every_size=False)
def whole_network(network: nn.Module, tensor: Tensor) -> Tensor:
    """(n, ...) -> (n, C, *grid)."""
    return cast(Tensor, network(tensor))


@region(every_size=False)
def image_network(network: nn.Module, images: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, C, rows, columns), without a classifier."""
    return cast(Tensor, cast(Any, network).forward_features(images))


@dataclass
class FrontEnd:
    """A modality's network, its projection to the width, a norm if asked for, a table of grid positions.

    ``limit``: most tokens of a row, drawn at random, where tokens are sampled; ``side``: edge of the largest
    grid of the position table.
    """

    name: str
    network: nn.Module
    projection: nn.Linear
    norm: nn.LayerNorm | None
    positions: nn.Embedding
    limit: int | None
    side: int

    @property
    def computing(self) -> tuple[nn.Module, ...]:
        """The modules that features come from."""
        return (self.network,)

    def features(self, tensor: Tensor) -> Tensor:
        """Run the network: (n, C, *grid)."""
        return cast(Tensor, whole_network(self.network, self._cast(tensor)))

    def project(self, features: Tensor) -> Tensor:
        """(n, P, C) -> (n, P, D)."""
        x = self.projection(features)
        return x if self.norm is None else self.norm(x)

    def grid_ids(self, grid: torch.Size, device: torch.device | None = None) -> Tensor:
        """Rows of the position table (P,), feature map or frame row by row; frames share their positions."""
        rows, columns = grid[-2], grid[-1]
        return self._ids(rows, columns, device).repeat(grid.numel() // (rows * columns))

    def position_embeddings(self, ids: Tensor, grid: torch.Size) -> Tensor:
        """(P,) -> (P, D)."""
        return self.positions(ids)

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(next(self.network.parameters()).dtype)

    def _ids(self, rows: int, columns: int, device: torch.device | None) -> Tensor:
        if max(rows, columns) > self.side:
            raise DataError(
                f"{self.name} features form a {rows}x{columns} grid; the position table has "
                f"{self.side}x{self.side} (use smaller input, or a larger image_bucket_size)"
            )
        return grid_positions(rows, columns, self.side, device)  # made there: a copy from the host is a stop


class VideoFrontEnd(FrontEnd):
    """(n, 3, F, h, w) -> a grid per frame of the network's output."""


@dataclass
class FramesFrontEnd(FrontEnd):
    """(n, 3, F, h, w) -> a grid per frame, by the image network; ``frames``: a position for each frame."""

    frames: nn.Embedding

    def features(self, tensor: Tensor) -> Tensor:
        count, length = tensor.size(0), tensor.size(2)
        if length > self.frames.num_embeddings:
            raise DataError(
                f"a clip has {length} frames; there are positions for {self.frames.num_embeddings} (use fewer with "
                "num_frames, or a larger video_frame_positions)"
            )
        images = channels_last(self._cast(tensor).transpose(1, 2).flatten(0, 1))
        maps = cast(Tensor, image_network(self.network, images))
        return maps.unflatten(0, (count, length)).transpose(1, 2)

    def position_embeddings(self, ids: Tensor, grid: torch.Size) -> Tensor:
        per_frame = grid.numel() // grid[0]
        return self.positions(ids) + self.frames.weight[: grid[0]].repeat_interleave(per_frame, 0)


@dataclass
class ImageFrontEnd(FrontEnd):
    """(n, 3, h, w) -> a grid. ``stretched_from``: pixels per side whose positions larger grids stretch."""

    stretched_from: int | None = None

    def features(self, tensor: Tensor) -> Tensor:
        return cast(Tensor, image_network(self.network, channels_last(self._cast(tensor))))

    def position_embeddings(self, ids: Tensor, grid: torch.Size) -> Tensor:
        """Positions of the grid, or those of a smaller picture stretched over it.

        The stride is the network's own (reference behaviour: always 16). Relative positions stay the grid's.
        """
        edge = 0 if self.stretched_from is None else self.stretched_from // cast(int, self.network.stride)
        if edge < 1 or grid.numel() <= edge * edge:
            return self.positions(ids)
        weight = self.positions.weight
        small = self.positions(grid_positions(edge, edge, self.side, weight.device))
        small = small.T.unflatten(1, (edge, edge)).unsqueeze(0)
        return F.interpolate(small, size=tuple(grid), mode="bilinear")[0].flatten(1).T


class AudioFrontEnd(FrontEnd):
    """(n, N) waveform -> time by frequency, numbered on the smallest square that holds all of it."""

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor  # the network makes its spectrogram in float32

    def grid_ids(self, grid: torch.Size, device: torch.device | None = None) -> Tensor:
        edge = math.ceil(math.sqrt(grid.numel()))
        return self._ids(edge, edge, device)[: grid.numel()]


@dataclass
class SoundPictureFrontEnd(FrontEnd):
    """(n, N) waveform -> bands by time, by the image network on the spectrogram that ``picture`` makes."""

    picture: nn.Module

    @property
    def computing(self) -> tuple[nn.Module, ...]:
        return (self.picture, self.network)

    def features(self, tensor: Tensor) -> Tensor:
        images = channels_last(self._cast(self.picture(tensor)))
        return cast(Tensor, image_network(self.network, images))


def front_end(
    part: ImageConfig | VideoConfig | AudioConfig,
    network: nn.Module,
    projection: nn.Linear,
    norm: nn.LayerNorm | None,
    positions: nn.Embedding,
    side: int,
    added: nn.Module | None = None,
) -> FrontEnd:
    """Return the front end of the modality that ``part`` configures; ``added``: what stands beside the image network
    where another modality has it, positions of frames or a :class:`SoundPicture`."""
    shared = (network, projection, norm, positions)
    if isinstance(part, ImageConfig):
        stretched = part.orig_patch_image_size if part.interpolate_position else None
        return ImageFrontEnd("image", *shared, part.sample_patch_num, side, stretched)
    if isinstance(part, VideoConfig):
        if isinstance(added, nn.Embedding):
            return FramesFrontEnd("video", *shared, part.sample_video_patch_num, side, added)
        return VideoFrontEnd("video", *shared, part.sample_video_patch_num, side)
    if added is not None:
        return SoundPictureFrontEnd("audio", *shared, part.sample_audio_patch_num, side, added)
    return AudioFrontEnd("audio", *shared, part.sample_audio_patch_num, side)
