"""Decoded audio clips to waveforms of one length; the network computes its own spectrogram."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unival.errors import ConfigError
from unival.media.arguments import needed, one_of

FILLINGS = ("repeatpad", "repeat", "pad")
CROPS = ("centre", "start")


def audio_eval(
    wave: np.ndarray, max_audio_len: int = 480_000, *, filling: str = "repeatpad", crop: str = "centre"
) -> Tensor:
    """Waveform (n,) to float32 (max_audio_len,).

    Rounded through 16-bit integers; a longer clip gives its centre ("start": its beginning; the
    reference crops at random even here); a shorter one is repeated a whole number of times and
    followed by zeros ("repeat": repeated to the end; "pad": once, then zeros). Raises ConfigError.
    """
    _check(max_audio_len, filling)
    one_of("crop", crop, CROPS)
    spare = max(len(wave) - max_audio_len, 0)
    return _fitted(wave, max_audio_len, spare // 2 if crop == "centre" else 0, filling)


def audio_train(
    wave: np.ndarray,
    max_audio_len: int = 480_000,
    rng: np.random.Generator | None = None,
    *,
    filling: str = "repeatpad",
) -> Tensor:
    """As ``audio_eval``, but a longer clip gives a random window, chosen by ``rng``. Raises ConfigError."""
    _check(max_audio_len, filling)
    start = int(needed(rng).integers(0, max(len(wave) - max_audio_len, 0) + 1))
    return _fitted(wave, max_audio_len, start, filling)


def int16_round_trip(wave: np.ndarray) -> np.ndarray:
    """Clip to [-1, 1] and truncate to 16-bit steps: float32 (n,). Reference behaviour."""
    steps = np.multiply(np.clip(wave, -1.0, 1.0), 32767.0, dtype=np.float64).astype(np.int16)
    # The reference divides in float64, which comes to the same float32 for each of the 65,536 steps.
    return np.divide(steps, np.float32(32767.0), dtype=np.float32)


def _fitted(wave: np.ndarray, length: int, start: int, filling: str) -> Tensor:
    wave = int16_round_trip(wave[start : start + length])
    out = np.zeros(length, dtype=np.float32)
    times = 1 if filling == "pad" else length // len(wave)
    out[: times * len(wave)].reshape(times, -1)[:] = wave
    if filling == "repeat":
        rest = out[times * len(wave) :]
        rest[:] = wave[: len(rest)]
    return torch.from_numpy(out)


def _check(max_audio_len: int, filling: str) -> None:
    if max_audio_len < 1:
        raise ConfigError(f"max_audio_len is {max_audio_len}: at least 1 sample is needed")
    one_of("filling", filling, FILLINGS)
