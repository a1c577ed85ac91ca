"""What a run keeps on disk: decoded media, and features of frozen networks, so that each medium is decoded and goes
through its network once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unival.core.provenance import versions
from unival.data.dataset import DataSource
from unival.errors import ConfigError
from unival.media.features import Place, Shelf
from unival.media.kept import KeptMedia
from unival.tasks.options import TaskOptions

logger = logging.getLogger(__name__)

DECODERS = ("unival", "av", "numpy", "Pillow", "soundfile", "soxr")  # that decide what is decoded
LIBRARIES = ("torch", "timm", "Pillow", "av", "torchvision", "librosa", "soxr")  # that decide the features


def keep_media(options: TaskOptions, sources: Iterable[DataSource]) -> None:
    """Let media of these tables be decoded once, where that is asked for."""
    if options.keep_media is not None:
        kept = KeptMedia(options.keep_media, _versions(DECODERS), int(options.keep_media_limit * 1e9))
        for source in sources:
            source.media.kept = kept


class Keeping:
    """The shelf of a run. Raises ConfigError when no network of the model is frozen."""

    def __init__(self, options: TaskOptions, model: Any) -> None:
        networks = {name: network_hash(*front.computing) for name, front in frozen(model).items()}
        if not networks:
            raise ConfigError(
                "--keep-features needs a frozen network: what one gives that trains changes with every update. Give "
                "--freeze-image-encoder (or video, audio), or leave --keep-features out"
            )
        assert options.keep_features is not None
        self.shelf = Shelf(options.keep_features, networks, int(options.keep_features_limit * 1e9))
        logger.info(f"features of {', '.join(networks)} networks are kept in {options.keep_features}")

    def attach(self, sources: Iterable[DataSource]) -> None:
        """Let rows of these tables be read from the shelf."""
        for source in sources:
            source.media.features = self.shelf

    def keep(self, places: Mapping[str, list[Place | None]], modality: str, features: Tensor) -> None:
        """Keep what the network gave for the media of a batch."""
        for place, each in zip(places.get(modality, []), features, strict=True):
            if place is not None:
                self.shelf.put(place, each)


def frozen(model: Any) -> dict[str, Any]:
    """Front ends, by modality, whose network has no parameter that trains."""
    return {
        name: front
        for name, front in model.encoder.front_ends.items()
        if not any(parameter.requires_grad for parameter in front.network.parameters())
    }


def network_hash(*modules: torch.nn.Module) -> str:
    """SHA-256 of a network's weights, its modules and the libraries that run it."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(str(module).encode())
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                digest.update(f"{name} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    digest.update(json.dumps(_versions(LIBRARIES), sort_keys=True).encode())
    return digest.hexdigest()


def _versions(names: Container[str]) -> dict[str, str]:
    return {name: version for name, version in versions().items() if name in names}


@contextmanager
def keeping(kept: Keeping | None, model: Any, sample: Any) -> Iterator[None]:
    """Keep the features of the first forward pass over each part of a batch in this block."""
    parts = [part for part in (sample if isinstance(sample, list) else [sample]) if part]
    waiting = [dict(part["places"]) for part in parts if any(part.get("places", {}).values())]
    if kept is None or not waiting:
        yield
        return

    def note(modality: str, features: Tensor) -> None:
        for places in waiting:
            if len(places.get(modality, ())) == len(features):
                kept.keep({modality: places.pop(modality)}, modality, features)
                return

    model.encoder.on_features = note
    try:
        yield
    finally:
        model.encoder.on_features = None
