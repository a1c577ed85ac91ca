"""From image codes to pictures, and from pictures to similarities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from unival.errors import ConfigError
from unival.imagegen.grid import STRIDE
from unival.imagegen.vqgan import Vqgan
from unival.metrics.images import Array, ClipScorer, clip_similarity, file_hash

if TYPE_CHECKING:
    from PIL.Image import Image

    from unival.imagegen.options import ImageGenOptions

AT_ONCE = 16  # bounds the memory of decoding and comparing
T = TypeVar("T")


class ImageScorer:
    """Renders image codes with a VQGAN and, where a CLIP is given, compares pictures with it.

    ``info`` names both files with their hashes, to be stored beside every score.
    Raises ConfigError for a VQGAN whose codes do not stand for 8 x 8 pixels.
    """

    def __init__(self, vqgan: Vqgan, clip: ClipScorer | None = None, **info: Any) -> None:
        if vqgan.sizes.stride != STRIDE:
            raise ConfigError(
                f"a code of this VQGAN stands for {vqgan.sizes.stride} pixels along a side; "
                f"the model's code positions are made for {STRIDE}"
            )
        self.vqgan, self.clip, self.info = vqgan, clip, info
        self.num_codes = vqgan.sizes.n_embed
        self.device = str(next(vqgan.parameters()).device)

    @classmethod
    def of(cls, options: ImageGenOptions, device: str | None = None) -> ImageScorer:
        """The scorer of a run's options; one per set of files and device, whoever asks.

        ``device`` None: this process's GPU where there is one.
        Raises ConfigError without ``vqgan_model_path``, CheckpointError for files that do not fit.
        """
        if not options.vqgan_model_path:
            raise ConfigError("vqgan_model_path is missing: pictures cannot be made from codes without it")
        if device is None:
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        return _scorer(
            options.vqgan_model_path,
            options.vqgan_config_path,
            options.clip_model_path,
            options.clip_architecture,
            device,
        )

    def render(self, grids: Sequence[Sequence[int]]) -> list[Image]:
        """Pictures (mode RGB) of square grids of codes in row-major order, all of one size."""
        return list(self.stream(grids))

    def stream(self, grids: Iterable[Sequence[int]]) -> Iterator[Image]:
        """The same one after the other, for sets that do not fit the memory."""
        from PIL import Image

        for part in _batches(grids):
            codes = torch.tensor(part, device=self.device)
            side = round(codes.size(1) ** 0.5)
            pixels = ((self.vqgan.decode(codes.view(-1, side, side)) + 1) * 127.5).round().to(torch.uint8)
            yield from (Image.fromarray(picture) for picture in pixels.permute(0, 2, 3, 1).cpu().numpy())

    def to_text(self, pictures: Iterable[Image], texts: Sequence[str]) -> Array:
        """Cosine similarity (N,) of pictures and captions, paired by position."""
        return clip_similarity(self.picture_features(pictures), self.text_features(texts))

    def to_pictures(self, pictures: Iterable[Image], others: Iterable[Image]) -> Array:
        """Cosine similarity (N,) of pictures and other pictures, paired by position."""
        return clip_similarity(self.picture_features(pictures), self.picture_features(others))

    def picture_features(self, pictures: Iterable[Image]) -> Array:
        """CLIP features (N, D) of pictures."""
        return np.concatenate([self._clip().images(part) for part in _batches(pictures)])

    def text_features(self, texts: Sequence[str]) -> Array:
        """CLIP features (N, D) of texts; equal ones are run once."""
        distinct = list(dict.fromkeys(texts))
        place = {text: k for k, text in enumerate(distinct)}
        features = np.concatenate([self._clip().texts(part) for part in _batches(distinct)])
        return features[[place[text] for text in texts]]

    def _clip(self) -> ClipScorer:
        if self.clip is None:
            raise ConfigError("clip_model_path is missing: pictures cannot be compared without it")
        return self.clip


@lru_cache(maxsize=2)
def _scorer(
    vqgan_path: str, config_path: str | None, clip_path: str | None, architecture: str, device: str
) -> ImageScorer:
    from unival.imagegen.weights import load_vqgan

    vqgan, _ = load_vqgan(vqgan_path, config_path)
    clip = ClipScorer(clip_path, architecture, device) if clip_path else None
    info: dict[str, Any] = {"vqgan_sha256": file_hash(vqgan_path)}
    if clip is not None:
        info |= {f"clip_{name}": value for name, value in clip.info.items()}
    return ImageScorer(vqgan.to(device), clip, **info)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, AT_ONCE)):
        yield batch
