"""Media compression: videos to few small frames a second, and their sound to 48 kHz mono, through PyAV."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unival.errors import ConfigError, DataError
from unival.media.container import decoded, open_stream, pyav
from unival.media.source import DEFAULT_LIMITS, Limits, MediaError, open_source, reading
from unival.media.video import _quarter_turns

SOUND_RATE = 48_000
KEEP = ("video", "video+sound", "sound")
SETTINGS, FAILED = "compress.json", "failed.tsv"
_VIDEO = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".ts", ".3gp", ".3g2", ".ogv", ".gif"),
)
_SOUND = (
    *(".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma"),
    *(".aiff", ".aif", ".ac3", ".amr", ".ape", ".wv"),
)


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


def folder_jobs(folder: Path, how: Compression) -> list[Job]:
    """Return a job for every media file below ``folder``, in order of their names; targets keep the names."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give the folder with the media")
    endings = (*_VIDEO, *_SOUND) if how.keep == "sound" else _VIDEO
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in endings and p.is_file())
    targets: dict[str, Path] = {}
    for path in files:
        target = path.relative_to(folder).with_suffix(how.ending).as_posix()
        if target in targets:
            raise ConfigError(
                f"{targets[target]} and {path} would both become {target}; put one of them elsewhere"
            )
        targets[target] = path
    return [Job(path, target) for target, path in targets.items()]


def segment_jobs(folder: Path, segments: Path, how: Compression) -> list[Job]:
    """Return the jobs of a segment list (JSON lines: source, start, end, target; sources without ending work)."""
    stems = {
        p.relative_to(folder).with_suffix("").as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()
    }
    jobs = []
    try:
        lines = segments.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--segments {segments} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            name, target = str(entry["source"]), Path(entry["target"]).with_suffix(how.ending)
            start, end = float(entry["start"]), float(entry["end"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"expected an object with source, start, end, target: {error!r}",
                path=str(segments),
                line=number,
            ) from None
        if target.is_absolute() or ".." in target.parts:
            raise DataError(
                f"the target '{target}' leaves the output folder", path=str(segments), line=number
            )
        jobs.append(Job(stems.get(name, folder / name), target.as_posix(), start, end))
    return jobs


def compress_all(
    jobs: Iterable[Job],
    out: Path,
    how: Compression,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int, dict[str, str]]:
    """Run all jobs whose target is not there yet; returns (made, already there, source -> reason of failures).

    A target appears when it is complete, so the same call goes on after a kill. Failures are written to
    ``failed.tsv`` and never copied. A file that was in work when a process died is tried once more, in a process
    of its own. Raises ConfigError when ``out`` was made with other settings.
    """
    if processes < 1:
        raise ConfigError(f"processes is {processes}; at least 1 is needed")
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(out, how)
    failed: dict[str, str] = {}
    waiting, there, total = [], 0, 0
    for job in jobs:
        total += 1
        if (out / job.target).exists():
            there += 1
        else:
            waiting.append(job)
    made = 0
    for done, (target, reason) in enumerate(_results(waiting, out, how, processes), 1):
        if reason is None:
            made += 1
        else:
            failed[target] = reason
        if progress is not None:
            progress(there + done, total)
    text = "".join(f"{target}\t{' '.join(reason.split())}\n" for target, reason in sorted(failed.items()))
    _replace(out / FAILED, lambda path: path.write_text(text, encoding="utf-8"))
    return made, there, failed


def _results(
    jobs: list[Job], out: Path, how: Compression, processes: int
) -> Iterator[tuple[str, str | None]]:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    run = partial(_guarded, out=out, how=how)
    left = {job.target: job for job in jobs}
    while left:
        for target in sorted(_in_work(out) & set(left)):
            yield _alone(left.pop(target), run)
        try:
            if processes == 1:
                for job in left.values():
                    yield run(job)
                return
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                for result in pool.map(run, list(left.values()), chunksize=4):
                    del left[result[0]]
                    yield result
        except BrokenProcessPool:
            finished = [target for target in left if (out / target).exists()]
            for target in finished:
                del left[target]
                yield target, None
            if not _in_work(out, keep=True):
                raise DataError(
                    "a process died between two files, perhaps for lack of memory; start the same command again, "
                    "with fewer --processes",
                    path=str(out),
                ) from None


def _alone(job: Job, run: Callable[[Job], tuple[str, str | None]]) -> tuple[str, str | None]:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(run, job).result()
    except BrokenProcessPool:
        return job.target, "the decoder's process died on it"


def _guarded(job: Job, out: Path, how: Compression) -> tuple[str, str | None]:
    """Run one job; returns (target, None or the reason of the failure). Leaves a mark while it runs."""
    target = out / job.target
    mark = out / f".working-{os.getpid()}"
    mark.write_text(job.target, encoding="utf-8")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _replace(target, lambda path: compress(job, path, how))
        return job.target, None
    except MediaError as error:
        return job.target, f"{error.source}: {error.reason}"
    finally:
        mark.unlink(missing_ok=True)


def _in_work(out: Path, keep: bool = False) -> set[str]:
    """Return the targets in work when a process died or was killed; their marks go unless ``keep``."""
    found = set()
    for mark in out.glob(".working-*"):
        if not _alive(int(mark.name.rpartition("-")[2])):
            found.add(mark.read_text(encoding="utf-8"))
            if not keep:
                mark.unlink()
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _same_settings(out: Path, how: Compression) -> None:
    place = out / SETTINGS
    if place.exists():
        found = json.loads(place.read_text(encoding="utf-8"))
        if found != asdict(how):
            raise ConfigError(
                f"{out} was made with {found}, not {asdict(how)}; use those settings or another folder"
            )
    else:
        _replace(place, lambda path: path.write_text(json.dumps(asdict(how)) + "\n", encoding="utf-8"))


def _replace(place: Path, write: Callable[[Path], Any]) -> None:
    temporary = place.with_name(f".{os.getpid()}.{place.name}")
    try:
        write(temporary)
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def compress(job: Job, target: Path, how: Compression, limits: Limits = DEFAULT_LIMITS) -> None:
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
            time = float(frame.time) if frame.time is not None else number / rate
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
