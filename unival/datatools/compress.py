"""Compression of whole folders and of segment lists: in several processes, going on after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

from unival.core.children import unheard_interrupts
from unival.core.files import encoded, make_folder, replacing, write_text
from unival.datatools.transcode import Compression, Job, compress
from unival.errors import ConfigError, DataError
from unival.media.source import MediaError

SETTINGS, FAILED = "compress.json", "failed.tsv"
_VIDEO = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".ts", ".3gp", ".3g2", ".ogv", ".gif"),
)
_SOUND = (
    *(".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma"),
    *(".aiff", ".aif", ".ac3", ".amr", ".ape", ".wv"),
)


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
    make_folder(out)
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
    write_text(out / FAILED, text)
    return made, there, failed


def _results(
    jobs: list[Job], out: Path, how: Compression, processes: int
) -> Iterator[tuple[str, str | None]]:
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
                with unheard_interrupts():
                    results = pool.map(run, list(left.values()), chunksize=4)
                try:
                    for result in results:
                        del left[result[0]]
                        yield result
                except (KeyboardInterrupt, GeneratorExit):  # here, or in who takes the results
                    pool.shutdown(wait=False, cancel_futures=True)
                    _end_workers(out)
                    raise
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
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            with unheard_interrupts():
                result = pool.submit(run, job)
            return result.result()
    except BrokenProcessPool:
        return job.target, "the decoder's process died on it"


def _guarded(job: Job, out: Path, how: Compression) -> tuple[str, str | None]:
    """Run one job; returns (target, None or the reason of the failure). Leaves a mark while it runs."""
    target = out / job.target
    mark = out / f".working-{os.getpid()}"
    mark.write_bytes(encoded(job.target))
    try:
        with replacing(target) as part:
            compress(job, part, how)
        return job.target, None
    except MediaError as error:
        return job.target, f"{error.source}: {error.reason}"
    finally:
        mark.unlink(missing_ok=True)


def _end_workers(out: Path) -> None:
    """End the processes of an interrupted call at once, and remove what they had begun."""
    for worker in active_children():
        worker.kill()
        worker.join()
        mark = out / f".working-{worker.pid}"
        if mark.exists():
            target = out / mark.read_text(encoding="utf-8")
            for part in target.parent.glob(f".{worker.pid}-*.part.*"):
                part.unlink()
            mark.unlink()


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
        write_text(place, json.dumps(asdict(how)) + "\n")
