"""Scores of generated images from features: FID, Inception Score, CLIP similarity, R-precision.

Arithmetic is separate from networks: every function takes feature arrays, and the networks' weights come from
files that the user names, whose hash belongs into the result. FID depends on the number of images and on the
resizer, so record both with the score.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unival.core.files import replacing
from unival.core.installation import install_extra
from unival.errors import CheckpointError, ConfigError, DataError, nearest

Array = npt.NDArray[np.float64]


def _matrix(features: npt.ArrayLike, name: str, rows: int) -> Array:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < rows or not np.isfinite(array).all():
        raise DataError(f"{name} must be a finite (N, D) array with N >= {rows}, not of shape {array.shape}")
    return array


def feature_statistics(features: npt.ArrayLike) -> tuple[Array, Array]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64."""
    array = _matrix(features, "features", 2)
    return array.mean(axis=0), np.atleast_2d(np.cov(array, rowvar=False))


def _root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frechet_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """Frechet distance of two Gaussians (Heusel et al. 2017): |m1-m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of the root is taken from the symmetric product C1^(1/2) C2 C1^(1/2), which has the same
    eigenvalues and needs no correction for singular covariances.
    """
    if mean_a.shape != mean_b.shape or cov_a.shape != cov_b.shape:
        raise DataError(f"features of {mean_a.shape} and {mean_b.shape} come from different extractors")
    root = _root(cov_a)
    values = np.linalg.eigvalsh(root @ ((cov_b + cov_b.T) / 2) @ root)
    trace = 2 * np.sqrt(np.clip(values, 0, None)).sum()
    gap = mean_a - mean_b
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - trace)


def fid(features_a: npt.ArrayLike, features_b: npt.ArrayLike) -> float:
    """Frechet Inception distance of two feature sets (N, D) and (M, D)."""
    return frechet_distance(*feature_statistics(features_a), *feature_statistics(features_b))


def read_statistics(path: str | Path) -> tuple[Array, Array]:
    """Mean and covariance from an ``.npz`` file with ``mu`` and ``sigma`` (the usual FID format)."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return np.asarray(data["mu"], np.float64), np.asarray(data["sigma"], np.float64)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"not an .npz file with arrays mu and sigma ({error})", path=str(path)) from error


def write_statistics(path: str | Path, mean: Array, covariance: Array) -> None:
    """Write an ``.npz`` file with ``mu`` (D,) and ``sigma`` (D, D), which ``read_statistics`` reads."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, mu=mean, sigma=covariance)


def inception_score(probabilities: npt.ArrayLike, splits: int = 1) -> tuple[float, float]:
    """Inception Score (Salimans et al. 2016) of class probabilities (N, C): mean and spread over ``splits``.

    exp of the mean KL divergence between each image's class distribution and their average, per contiguous
    split.
    """
    array = _matrix(probabilities, "probabilities", 1)
    if not 1 <= splits <= len(array):
        raise ConfigError(f"splits={splits}: choose 1 to the number of images, {len(array)}")
    if (array < 0).any() or not np.allclose(array.sum(axis=1), 1, atol=1e-3):
        raise DataError("probabilities must be rows of non-negative numbers that add up to 1")
    values = []
    for i in range(splits):
        part = array[i * len(array) // splits : (i + 1) * len(array) // splits]
        average = part.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(part > 0, part * (np.log(part) - np.log(average)), 0.0)
        values.append(np.exp(terms.sum(axis=1).mean()))
    return float(np.mean(values)), float(np.std(values))


def _unit(array: Array) -> Array:
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)


def clip_similarity(image_features: npt.ArrayLike, text_features: npt.ArrayLike) -> Array:
    """Cosine similarity (N,) of paired image and text features (N, D) each."""
    images, texts = _matrix(image_features, "image features", 1), _matrix(text_features, "text features", 1)
    if images.shape != texts.shape:
        raise DataError(f"{images.shape} image features do not pair with {texts.shape} text features")
    return np.einsum("nd,nd->n", _unit(images), _unit(texts))


def r_precision(image_features: npt.ArrayLike, text_features: npt.ArrayLike) -> float:
    """Share of images (N, D) whose own text is the most similar of all N texts; a tie counts as a miss."""
    images, texts = _matrix(image_features, "image features", 1), _matrix(text_features, "text features", 1)
    if images.shape != texts.shape:
        raise DataError(f"{images.shape} image features do not pair with {texts.shape} text features")
    images, texts = _unit(images), _unit(texts)
    hits = 0
    for first in range(0, len(images), 1024):  # all pairs at once would not fit the memory
        similarity = images[first : first + 1024] @ texts.T
        rows = np.arange(len(similarity))
        own = similarity[rows, first + rows].copy()
        similarity[rows, first + rows] = -np.inf
        hits += int((own > similarity.max(axis=1)).sum())
    return hits / len(images) if len(images) > 1 else 1.0


def file_hash(path: str | Path) -> str:
    """SHA-256 of a weights file, to stand beside every score computed with it."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read the weights {path}: {error.strerror}") from error
    return digest.hexdigest()


def extract_features(batches: Iterable[Any], extractor: Callable[[Any], Any]) -> Array:
    """Features (N, D) of batches of images by any callable that maps a batch to a (B, D) tensor or array."""
    parts = []
    for batch in batches:
        result = extractor(batch)
        result = result.detach().float().cpu().numpy() if hasattr(result, "detach") else np.asarray(result)
        parts.append(result.reshape(len(result), -1).astype(np.float64))
    if not parts:
        raise DataError("there are no images to extract features from")
    return np.concatenate(parts)


class ClipScorer:
    """CLIP features with weights from a file; nothing is downloaded.

    Needs the package open_clip_torch. ``architecture`` is its model name ("ViT-B-32"; OpenAI's files need the
    names that end in "-quickgelu"), or a JSON file of its model configurations. ``weights``: the file, a state
    dict or OpenAI's TorchScript archive. ``info`` names architecture, file and hash, to be stored with a score.
    Raises CheckpointError for an absent, unsafe or unsuitable file, ConfigError for an unknown architecture.
    """

    def __init__(self, weights: str | Path, architecture: str = "ViT-B-32", device: str = "cpu") -> None:
        if not Path(weights).is_file():
            raise CheckpointError(
                f"the CLIP weights {weights} do not exist; name a file, nothing is downloaded"
            )
        try:
            import open_clip
        except ImportError as error:
            raise ConfigError(
                f"CLIP similarity needs open_clip_torch: {install_extra('imagegen')}"
            ) from error
        name = _clip_architecture(open_clip, architecture)
        self.model, self.preprocess = new_clip(open_clip, name, device)
        try:
            self.model.load_state_dict(_clip_state(weights))
        except RuntimeError as error:
            lines = " ".join(str(error).split())
            raise CheckpointError(
                f"the CLIP weights {weights} do not fit architecture '{architecture}': {lines[:300]}"
            ) from error
        self.model.eval()
        self.tokenize = open_clip.get_tokenizer(name)
        self.device = device
        self.info = {"clip": name, "weights": Path(weights).name, "sha256": file_hash(weights)}

    def images(self, images: Iterable[Any]) -> Array:
        """Features (N, D) of PIL images."""
        import torch

        with torch.inference_mode():
            batch = torch.stack([self.preprocess(image) for image in images]).to(self.device)
            return extract_features([batch], self.model.encode_image)

    def texts(self, texts: Iterable[str]) -> Array:
        """Features (N, D) of texts."""
        import torch

        with torch.inference_mode():
            return extract_features([self.tokenize(list(texts)).to(self.device)], self.model.encode_text)

    def similarity(self, images: Iterable[Any], texts: Iterable[str]) -> Array:
        """Cosine similarity (N,) of paired PIL images and texts."""
        return clip_similarity(self.images(images), self.texts(texts))


def new_clip(open_clip: Any, name: str, device: str) -> tuple[Any, Any]:
    """A model of open_clip with random weights, and its preprocessing of PIL images."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of the random weights, which are what is asked for
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=None, pretrained_text=False, device=device
        )
    finally:
        logging.disable(disabled)
    return model, preprocess


def _clip_architecture(open_clip: Any, architecture: str) -> str:
    """The name by which open_clip knows a model; a JSON file is registered under its own name."""
    name = architecture
    if architecture.endswith(".json"):
        if not Path(architecture).is_file():
            raise ConfigError(f"the CLIP configuration {architecture} does not exist")
        open_clip.add_model_config(architecture)
        name = Path(architecture).stem
    known = open_clip.list_models()
    if name not in known:
        raise ConfigError(f"open_clip has no architecture '{architecture}'.{nearest(architecture, known)}")
    text = open_clip.get_model_config(name).get("text_cfg", {})
    if "hf_tokenizer_name" in text or "hf_model_name" in text:
        raise ConfigError(
            f"open_clip would download the tokenizer of '{architecture}'; choose one with CLIP's own, "
            "such as ViT-B-16"
        )
    return name


def _clip_state(path: str | Path) -> dict[str, Any]:
    """Tensors of a CLIP file, read without running Python code that it may hold."""
    import torch

    from unival.core.torchfile import load_torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            scripted = any(member.endswith("/constants.pkl") for member in archive.namelist())
        if scripted:  # OpenAI's files: torch's own reader of these archives knows tensors only
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
            about = ("input_resolution", "context_length", "vocab_size")
            return {key: value for key, value in state.items() if key not in about}
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return dict(load_file(path))
    content = load_torch(path)
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise CheckpointError(f"the CLIP weights {path} hold no state dict")
    return {key.removeprefix("module."): value for key, value in content.items()}
