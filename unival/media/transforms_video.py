"""Decoded clips to model input; one choice of parameters for all frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unival.core.seeding import torch_seeded
from unival.media.arguments import needed, one_of
from unival.media.resize import centre_crop, resized_pixels
from unival.media.transforms_image import HALF, normalised

FRAME_RESIZE = ("none", "short_side", "square")
ORDERS = ("finetune", "pretrain")


def video_eval(
    frames: np.ndarray,
    size: int,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    *,
    frame_resize: str = "none",
) -> Tensor:
    """Clip uint8 (F, h, w, 3) to float32 (3, F, size, size).

    frame_resize "none": centre crop, black around smaller frames (reference behaviour, for clips
    prepared at a short side near ``size``); "short_side": resize that side to ``size``, then crop;
    "square": resize to size x size, not keeping the aspect ratio. Bicubic. Raises ConfigError.
    """
    one_of("frame_resize", frame_resize, FRAME_RESIZE)
    clip = _channels_first(frames)
    if frame_resize == "short_side":
        height, width = clip.shape[-2:]
        short = min(height, width)
        target = [max(size, round(height * size / short)), max(size, round(width * size / short))]
        clip = resized_pixels(clip, target)
    elif frame_resize == "square":
        clip = resized_pixels(clip, [size, size])
    return _finished(centre_crop(clip, size), mean, std)


def video_train(
    frames: np.ndarray,
    size: int,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    rng: np.random.Generator | None = None,
    *,
    augment: bool = True,
    frame_resize: str = "none",
    order: str = "finetune",
    flip: bool = True,
) -> Tensor:
    """The training clip, float32 (3, F, size, size); the same ``rng`` state gives the same result.

    With ``augment``: torchvision's RandAugment, a random crop of 50 to 100 % of the area resized to
    size x size (bicubic), a random horizontal flip; order "pretrain" is crop, flip, RandAugment.
    ``flip=False`` keeps captions with "left" and "right" true. Without ``augment``: ``video_eval``.
    Raises ConfigError.
    """
    one_of("order", order, ORDERS)
    if not augment:
        return video_eval(frames, size, mean, std, frame_resize=frame_resize)
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import InterpolationMode

    crop = [v2.RandomResizedCrop(size, (0.5, 1.0), interpolation=InterpolationMode.BICUBIC, antialias=True)]
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    colour = [v2.RandAugment()]
    steps = [*colour, *crop, *mirror] if order == "finetune" else [*crop, *mirror, *colour]
    with torch_seeded(needed(rng)):
        clip = v2.Compose(steps)(_channels_first(frames))
    return _finished(clip, mean, std)


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)


def _finished(clip: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return normalised(clip.permute(1, 0, 2, 3), mean, std)
