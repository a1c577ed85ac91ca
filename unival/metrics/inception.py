"""FID and Inception Score with the Inception network of torch-fidelity and weights from a file.

torch-fidelity (extra ``imagegen``) is imported when a scorer is made. Its network is the TensorFlow network
of the FID paper; its published weights file is ``weights-inception-2015-12-05-6726825d.pth``. Inception
weights differ between libraries, therefore the file's hash stands in every result.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unival.core.installation import install_extra
from unival.errors import CheckpointError, ConfigError, DataError
from unival.metrics.images import (
    Array,
    extract_features,
    feature_statistics,
    file_hash,
    frechet_distance,
    inception_score,
    read_statistics,
)
from unival.metrics.result import Scores

LAYERS = ("64", "192", "768", "2048")
_LOGITS = "logits_unbiased"  # torch-fidelity takes the Inception Score from the logits without the bias


class InceptionFeatures(NamedTuple):
    """Features (N, D) of the chosen layer and class logits (N, 1008), float64."""

    features: Array
    logits: Array


class InceptionScorer:
    """FID and Inception Score of images, equal to torch-fidelity's; nothing is downloaded.

    ``weights`` is a state dict of torch-fidelity's network, read without running code. ``layer`` is where FID
    takes its features: "2048" is the official one, the shallower ones serve sets of few images, are other
    scores, and stand in ``info``. Raises CheckpointError for an absent or unsuitable file, ConfigError for a
    missing package or an unknown option.
    """

    def __init__(
        self, weights: str | Path, *, layer: str = "2048", device: str = "cpu", batch_size: int = 32
    ) -> None:
        if not Path(weights).is_file():
            raise CheckpointError(
                f"the Inception weights {weights} do not exist; name a file, nothing is downloaded"
            )
        if layer not in LAYERS:
            raise ConfigError(f"layer={layer!r}: choose one of {', '.join(LAYERS)}")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: choose 1 or more")
        self.network, version = _network(weights, layer)
        self.network.to(device)
        self.device, self.batch_size = device, batch_size
        self.info: dict[str, Any] = {
            "inception": f"torch-fidelity {version}",
            "weights": Path(weights).name,
            "sha256": file_hash(weights),
            "fid_layer": layer,
            "resize": "299x299, bilinear of TensorFlow 1, in the network",
        }

    def features(self, images: Iterable[Any]) -> InceptionFeatures:
        """Features and logits of images in their order.

        An image is a PIL image, a uint8 tensor (3, h, w), or whatever ``unival.media.read_image`` reads (a
        path, bytes, an open file). Sizes may differ. Raises DataError for no image or another kind of tensor.
        """
        import torch

        def run(batch: Any) -> Any:
            first, logits = self.network(batch.to(self.device))
            return torch.cat([first, logits], dim=1)

        with torch.inference_mode():
            both = extract_features(_batches(images, self.batch_size), run)
        width = int(self.info["fid_layer"])
        return InceptionFeatures(both[:, :width], both[:, width:])

    def score(
        self,
        images: Iterable[Any],
        reference: Iterable[Any] | str | Path | None = None,
        *,
        splits: int = 10,
        shuffle_seed: int | None = 2020,
    ) -> Scores:
        """Scores ``fid`` (with a reference), ``inception_score`` and ``inception_score_std`` of N images.

        ``reference`` is a set of images, or the path of an ``.npz`` file with ``mu`` and ``sigma`` of the
        same layer. Before the Inception Score the images are put into the order of ``shuffle_seed``, as
        torch-fidelity does by default with this number; None keeps their order.
        """
        features, logits = self.features(images)
        info = {**self.info, "images": len(features), "splits": splits, "shuffle_seed": shuffle_seed}
        corpus: dict[str, float] = {}
        if reference is not None:
            if isinstance(reference, str | Path):
                statistics = read_statistics(reference)
                info |= {"reference": Path(reference).name, "reference_sha256": file_hash(reference)}
            else:
                other = self.features(reference).features
                statistics = feature_statistics(other)
                info["reference_images"] = len(other)
            corpus["fid"] = frechet_distance(*feature_statistics(features), *statistics)
        if shuffle_seed is not None:
            # Splits depend on the order: only this generator gives torch-fidelity's score.
            logits = logits[np.random.RandomState(shuffle_seed).permutation(len(logits))]
        mean, spread = inception_score(_softmax(logits), splits)
        corpus |= {"inception_score": mean, "inception_score_std": spread}
        return Scores(corpus, info=info)


def _network(weights: str | Path, layer: str) -> tuple[Any, str]:
    try:
        import torch_fidelity
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError(
            f"FID and Inception Score need torch-fidelity ({error}): {install_extra('imagegen')}"
        ) from error
    import torch

    from unival.core.torchfile import load_torch

    # torch-fidelity unpickles without restriction, so it gets a copy of what the safe reader found.
    copy = io.BytesIO()
    torch.save(load_torch(weights), copy)
    copy.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", [layer, _LOGITS], copy)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = " ".join(str(error).split())
        raise CheckpointError(
            f"'{weights}' does not hold the weights of torch-fidelity's Inception network: {lines[:300]}"
        ) from error
    return network.eval(), str(torch_fidelity.__version__)


def _batches(images: Iterable[Any], size: int) -> Iterator[Any]:
    """uint8 batches (B, 3, h, w), B <= size, of neighbours of one size."""
    import torch

    for _, group in groupby(map(_tensor, images), key=lambda image: tuple(image.shape)):
        while batch := list(islice(group, size)):
            yield torch.stack(batch)


def _tensor(image: Any) -> Any:
    import torch
    from PIL import Image

    from unival.media import read_image

    if isinstance(image, torch.Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            found = f"{image.dtype} {tuple(image.shape)}"
            raise DataError(f"an image tensor must be torch.uint8 of shape (3, h, w), not {found}")
        return image.cpu()
    picture = image.convert("RGB") if isinstance(image, Image.Image) else read_image(image)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
