"""Audio clips: any sound file, or the sound of a video file, to one float32 channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from unival.errors import ConfigError
from unival.media.container import decoded, open_stream
from unival.media.source import (
    DEFAULT_LIMITS,
    Limits,
    MediaError,
    Opened,
    Source,
    describe,
    open_source,
    reading,
)

_BLOCK = 1 << 18  # samples per channel and read


def read_audio(
    source: Source, rate: int, *, limits: Limits = DEFAULT_LIMITS, name: str | None = None
) -> np.ndarray:
    """Read a clip as float32 (N,), the mean of its channels, at ``rate`` samples a second.

    soundfile reads it, else PyAV (m4a, ape, amr... and the first audio stream of a video file).
    Another sample rate is converted with soxr's high-quality filter (librosa's default), unlike the
    reference, which silently keeps it. Full scale is [-1, 1]; floating-point files may exceed it.
    A damaged or cut-off file gives the samples that decode. Samples that are not finite become 0.
    Raises MediaError (not readable, no samples, no finite sample, longer than limits.audio_seconds).
    """
    if rate < 1:
        raise ConfigError(f"sample rate {rate}: a positive number of samples a second is needed")
    opened = open_source(source, name)
    with reading(opened.name):
        return finished(opened.name, *_decode(opened, limits), rate)


def finished(name: str, samples: np.ndarray, found: int, rate: int) -> np.ndarray:
    """Return float32 samples (n,) of the rate ``found`` at ``rate``, those that are not finite as 0."""
    if not _all_finite(samples):
        finite = np.isfinite(samples)
        if not finite.any():
            raise MediaError(name, "no sample is a finite number")
        samples = np.where(finite, samples, np.float32(0))
    if found != rate:
        samples = _resampled(samples, found, rate)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _resampled(samples: np.ndarray, found: int, rate: int) -> np.ndarray:
    import soxr

    wanted = max(1, -(-len(samples) * rate // found))
    out = soxr.resample(samples, found, rate, quality="HQ")[:wanted]
    out = np.pad(out, (0, wanted - len(out))) if len(out) < wanted else out
    return out if _all_finite(out) else np.nan_to_num(out)


def _all_finite(samples: np.ndarray) -> bool:
    """Whether no sample is infinite or no number; False too where only their sum is."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(samples.sum()))


def _decode(opened: Opened, limits: Limits) -> tuple[np.ndarray, int]:
    complaints = []
    for library, decode in (("soundfile", _with_soundfile), ("FFmpeg", _with_ffmpeg)):
        try:
            blocks, rate = decode(opened, limits)
        except _Refused as error:
            raise MediaError(opened.name, error.reason) from error
        except MediaError as error:
            complaints.append(f"{library}: {error.reason}")
            continue
        except Exception as error:
            complaints.append(f"{library}: {describe(error)}")
            continue
        if sum(map(len, blocks)):
            return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), rate
        complaints.append(f"{library}: no samples")
    raise MediaError(opened.name, "; ".join(complaints))


class _Refused(MediaError):
    """Readable, but over a limit: no other library is asked."""


def check_length(name: str, count: int, rate: int, limits: Limits) -> None:
    if rate < 1:
        raise _Refused(name, f"its sample rate is {rate}")
    if count > limits.audio_seconds * rate:
        raise _Refused(
            name,
            f"more than {limits.audio_seconds:g} seconds, the limit: "
            "cut the clip or raise the limit (Limits.audio_seconds)",
        )


def mono(block: np.ndarray) -> np.ndarray:
    """(n, channels) -> (n,), in the order and precision that averages exactly for equal channels."""
    if block.shape[1] == 1:
        return block[:, 0]
    if block.shape[1] == 2:
        # numpy's mean to the bit (adding 0 makes -0 positive), which is slow over so short an axis
        left, right = block.T
        return ((np.add(left, 0.0, dtype=np.float64) + right) / 2).astype(np.float32)
    return block.mean(axis=1, dtype=np.float64).astype(np.float32)


def _with_soundfile(opened: Opened, limits: Limits) -> tuple[list[np.ndarray], int]:
    import soundfile

    blocks: list[np.ndarray] = []
    count = 0
    with soundfile.SoundFile(opened.handle()) as file:
        rate = int(file.samplerate)
        # Block by block, because headers promise any number of samples.
        while True:
            try:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
            except Exception:
                if count:
                    break
                raise
            blocks.append(mono(block))
            count += len(block)
            check_length(opened.name, count, rate, limits)
            if len(block) < _BLOCK:
                break
    return blocks, rate


def _with_ffmpeg(opened: Opened, limits: Limits) -> tuple[list[np.ndarray], int]:
    blocks: list[np.ndarray] = []
    count = rate = 0
    with open_stream(opened, "audio") as (container, stream):
        for frame in decoded(opened, container, stream):
            rate = rate or int(frame.sample_rate)
            if frame.sample_rate != rate:
                raise MediaError(opened.name, f"its sample rate changes from {rate} to {frame.sample_rate}")
            blocks.append(mono(_to_float(frame)))
            count += len(blocks[-1])
            check_length(opened.name, count, rate, limits)
    return blocks, rate


def _to_float(frame: Any) -> np.ndarray:
    """An audio frame as float32 (n, channels) with full scale [-1, 1]."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    samples = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    info = np.iinfo(samples.dtype)
    middle = (int(info.max) + 1) // 2 if info.min == 0 else 0
    full = float(info.max) + 1 - middle
    return ((samples.astype(np.float64) - middle) / full).astype(np.float32)
