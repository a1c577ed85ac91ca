"""Media that are objects in memory: they become what the same content in a file would become."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from unival.media.audio import check_length, finished, mono
from unival.media.frames import frame_indices
from unival.media.image import to_upright_rgb
from unival.media.source import Limits, MediaError, reading

EXPECTED = (
    "a path, bytes, a binary file, a PIL image, an array (h, w, 3) or (F, h, w, 3), a waveform (N,) or "
    "(waveform, rate)"
)
_CHANNELS = 64  # more than that, and more than there are samples: the axes stand the other way round
_PIXELS = "pixels are uint8, uint16, bool, or floating point in 0..1"


def label(medium: Any) -> str:
    """Name a medium in a message."""
    if isinstance(medium, (bytes, bytearray, memoryview)):
        return f"<{len(medium)} bytes>"
    shape = getattr(medium, "shape", None)
    return f"<{type(medium).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}>"


def picture(medium: Any) -> Image.Image:
    """Return a PIL image, an array or a tensor as mode "RGB", by the rules of ``unival.media.read_image``.

    Arrays: (h, w), (h, w, 1 to 4) or, for three channels and one, (c, h, w).
    """
    if isinstance(medium, Image.Image):
        with reading(label(medium)):
            if not all(medium.size):
                raise MediaError(label(medium), "the image has no pixels ({} x {})".format(*medium.size))
            medium.load()
            return to_upright_rgb(medium)
    pixels = _array(medium)
    if pixels.ndim == 4:
        raise MediaError(label(medium), "is a clip; an image (h, w, 3) was expected")
    channels_first = pixels.ndim == 3 and pixels.shape[2] not in (1, 2, 3, 4) and pixels.shape[0] in (1, 3)
    if channels_first:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (2,), (3,), (4,)) or not pixels.size:
        raise MediaError(label(medium), f"expected {EXPECTED}")
    with reading(label(medium)):
        return to_upright_rgb(_grey(medium, pixels) if pixels.ndim == 2 else _colour(medium, pixels))


def clip(medium: Any, num_frames: int, sampling: str, rng: np.random.Generator | None) -> np.ndarray:
    """Return frames of an array or tensor (F, h, w, 3), chosen as ``read_video`` chooses: uint8."""
    frames = _array(medium)
    if frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise MediaError(label(medium), "a clip in memory is an array (F, h, w, 3)")
    return _eight_bit(medium, frames[frame_indices(num_frames, len(frames), sampling, rng)])


def sound(medium: Any, rate: int, limits: Limits) -> np.ndarray:
    """Return a float array (N,) or (channels, N), or a pair (array, its rate in Hz), as ``read_audio`` would:
    float32 (n,) at ``rate``. An array alone is taken to have that rate."""
    wave, found = medium if isinstance(medium, tuple) else (medium, rate)
    samples = _array(wave)
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or not samples.size:
        raise MediaError(label(medium), "a sound in memory is a float array (N,) or (channels, N)")
    if isinstance(found, bool) or not isinstance(found, (int, float, np.integer, np.floating)) or found < 1:
        raise MediaError(label(medium), f"its sample rate is {found!r}: give (waveform, rate in Hz)")
    channels = np.atleast_2d(samples)
    if len(channels) > max(_CHANNELS, channels.shape[1]):
        shape = f"{len(channels)} channels of {channels.shape[1]} samples"
        raise MediaError(label(medium), f"would be {shape}: a sound is (channels, N); transpose it")
    with reading(label(medium)):
        check_length(label(medium), channels.shape[1], int(found), limits)
        return finished(label(medium), mono(channels.T.astype(np.float32)), int(found), rate)


def _array(medium: Any) -> np.ndarray:
    """Return an array or tensor of any kind as numpy holds it; MediaError for what has no content."""
    try:
        if hasattr(medium, "detach"):  # a torch tensor
            tensor = medium.detach().cpu()
            tensor = tensor.to_dense() if tensor.layout != _strided() else tensor
            return (tensor.float() if _is_bfloat16(tensor) else tensor).numpy()
        return np.asarray(medium)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:160]
        raise MediaError(label(medium), f"has no content that can be read ({said})") from error


def _strided() -> Any:
    import torch

    return torch.strided


def _is_bfloat16(tensor: Any) -> bool:
    import torch

    return tensor.dtype == torch.bfloat16  # which numpy has no name for


def _grey(medium: Any, pixels: np.ndarray) -> Image.Image:
    """One channel, in Pillow's mode for its type: what is done with the mode is done in image.py."""
    if pixels.dtype == np.uint16:
        return Image.fromarray(pixels.astype("<u2"), "I;16")
    if pixels.dtype.kind == "f" and np.isfinite(pixels).any():
        return Image.fromarray(pixels.astype(np.float32), "F")
    if pixels.dtype.kind in "iu" and pixels.dtype != np.uint8 and abs(int(pixels.max())) < 2**31:
        return Image.fromarray(pixels.astype(np.int32), "I")
    return Image.fromarray(_eight_bit(medium, pixels), "L")


def _colour(medium: Any, pixels: np.ndarray) -> Image.Image:
    mode = {2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    return Image.fromarray(_eight_bit(medium, pixels), mode)


def _eight_bit(medium: Any, pixels: np.ndarray) -> np.ndarray:
    """Return uint8 values of the same brightness."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype == np.uint16:  # several channels: the upper byte, as Pillow reads such files
        return (pixels >> 8).astype(np.uint8)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind != "f" or not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise MediaError(label(medium), f"{_PIXELS}, not {pixels.dtype}{_range(pixels)}")
    return np.rint(pixels * 255).astype(np.uint8)


def _range(pixels: np.ndarray) -> str:
    return f" from {pixels.min():g} to {pixels.max():g}" if pixels.dtype.kind in "fiu" else ""
