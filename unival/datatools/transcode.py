"""One media file made small: a video of few small frames a second, its sound, or the sound alone; through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from unival.errors import ConfigError
from unival.media.container import decoded, open_stream, pyav
from unival.media.source import Limits, MediaError, open_source, reading
from unival.media.video import _quarter_turns

SOUND_RATE = 48_000
KEEP = ("video", "video+sound", "sound")
# a film may be long before it is cut or made small
LIMITS = Limits(video_packets=1_000_000)


@dataclass(frozen=True)
class Compression:
    """``keep``: "video" (MP4 without sound), "video+sound", or "sound" (48 kHz mono WAV). ``side``: the shorter
    side in pixels, never enlarged. ``fps``: frames a second. ``crf``: H.264 quality, smaller is better.
    The defaults are the reference's (224, 3, without sound)."""

    keep: str = "video"
    side: int = 224
    fps: float = 3.0
    crf: int = 23

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise ConfigError(f"keep is '{self.keep}'; choose {', '.join(KEEP)}")
        if self.side < 16 or not 0 < self.fps <= 120 or not 0 <= self.crf <= 51:
            raise ConfigError(
                f"side {self.side}, fps {self.fps:g}, crf {self.crf}: needs a side of at least 16, 0 < fps <= 120, "
                "0 <= crf <= 51"
            )

    @property
    def ending(self) -> str:
        return ".wav" if self.keep == "sound" else ".mp4"


@dataclass(frozen=True)
class Job:
    """One file to make: ``target`` below the output folder; ``start`` and ``end`` in seconds of the source."""

    source: Path
    target: str
    start: float = 0.0
    end: float | None = None


def compress(job: Job, target: Path, how: Compression, limits: Limits = LIMITS) -> None:
    """Make one file. Raises MediaError for a source that cannot be decoded or has nothing in the segment."""
    opened = open_source(job.source)
    if job.end is not None and job.end <= job.start:
        raise MediaError(
            opened.name, f"the segment ends at {job.end:g} s, before it starts at {job.start:g} s"
        )
    with reading(opened.name):
        if how.keep == "sound":
            _write_sound(job, target, limits)
        else:
            _write_video(job, target, how, limits)


def _sound(job: Job, limits: Limits) -> np.ndarray:
    """Return the sound of the segment as float32 (n,), mono, 48 kHz."""
    from unival.media.audio import read_audio

    wave = read_audio(job.source, SOUND_RATE, limits=limits)
    end = len(wave) if job.end is None else round(job.end * SOUND_RATE)
    wave = wave[round(job.start * SOUND_RATE) : end]
    if not len(wave):
        raise MediaError(str(job.source), f"there is no sound after {job.start:g} s")
    return wave


def _write_sound(job: Job, target: Path, limits: Limits) -> None:
    import soundfile

    soundfile.write(str(target), _sound(job, limits), SOUND_RATE, subtype="PCM_16", format="WAV")


def _frames(job: Job, how: Compression, limits: Limits) -> Iterator[np.ndarray]:
    """Yield uint8 (h, w, 3), upright and scaled: for each output time the first frame that is not earlier."""
    opened = open_source(job.source)
    step = 1.0 / how.fps
    with open_stream(opened, "video") as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        origin: float | None = None
        shape: tuple[int, int] | None = None
        turns = count = 0
        for number, frame in enumerate(decoded(opened, container, stream, limits.video_packets)):
            # PyAV's own frame.time is not a number for what comes out of the decoder last
            known = frame.pts is not None and stream.time_base
            time = float(frame.pts * stream.time_base) if known else number / rate
            origin = time if origin is None else origin
            time -= origin
            if job.end is not None and time >= job.end:
                break
            if time + 1e-6 < job.start + count * step:
                continue
            if shape is None:
                shape, turns = _scaled(frame.width, frame.height, how.side), _quarter_turns(frame.rotation)
            picture = frame.reformat(width=shape[0], height=shape[1], format="rgb24").to_ndarray()
            picture = np.ascontiguousarray(np.rot90(picture, turns))
            while job.start + count * step <= time + 1e-6:
                count += 1
                yield picture
    if not count:
        raise MediaError(opened.name, f"there is no frame after {job.start:g} s")


def _scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """Return even sizes with the shorter side ``side`` at most."""
    ratio = min(1.0, side / min(width, height))
    return max(2, round(width * ratio / 2) * 2), max(2, round(height * ratio / 2) * 2)


def _write_video(job: Job, target: Path, how: Compression, limits: Limits) -> None:
    av = pyav()
    rate = Fraction(how.fps).limit_denominator(1001)
    sound = _sound(job, limits) if how.keep == "video+sound" else None
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as container:
        options = {"crf": str(how.crf), "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono") if sound is not None else None
        packets = []
        for number, picture in enumerate(_frames(job, how, limits)):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
                stream.time_base = 1 / rate
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, 1 / rate
            packets += stream.encode(frame)
        packets += stream.encode()
        if audio is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                block = np.ascontiguousarray(sound[None, start : start + 1024])
                piece = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
                packets += audio.encode(piece)
            packets += audio.encode()
        # players read both streams side by side
        for packet in sorted((p for p in packets if p.dts is not None), key=lambda p: p.dts * p.time_base):
            container.mux(packet)
