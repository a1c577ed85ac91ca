"""Which frames of a video to look at."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from unival.errors import ConfigError


def frame_indices(
    num_frames: int,
    length: int,
    sampling: str = "middle",
    rng: np.random.Generator | None = None,
    fps: float | None = None,
) -> list[int]:
    """Choose frames of a video of ``length`` frames; ascending indices.

    sampling "middle": the centre of each of ``num_frames`` equal intervals. "rand": one random frame
    of each interval, its last frame excepted; when an interval is too short for that, a sorted random
    subset of all frames. Both repeat the last index of a video with fewer than ``num_frames`` frames.
    "fps<x>": x frames a second of a video with ``fps`` frames a second, cut to ``num_frames`` when that
    is positive, and not filled up. (Reference behaviour, with the random choice seeded by ``rng``.)
    Raises ConfigError for an unknown sampling or a missing rng or fps.
    """
    check_sampling(num_frames, sampling, rng)
    if length < 1:
        raise ConfigError(f"a video of {length} frames: at least 1 is needed")
    if sampling.startswith("fps"):
        return _by_rate(num_frames, length, float(sampling[3:]), fps)
    count = min(num_frames, length)
    edges = np.linspace(0, length, count + 1).astype(int)
    firsts, lasts = edges[:-1], edges[1:] - 1
    if sampling == "middle":
        chosen = (firsts + lasts) // 2
    else:
        assert rng is not None
        if np.all(lasts > firsts):
            chosen = rng.integers(firsts, lasts)
        else:
            chosen = np.sort(rng.permutation(length)[:count])
    indices = [int(i) for i in chosen]
    return indices + [indices[-1]] * (num_frames - count)


def check_sampling(num_frames: int, sampling: str, rng: np.random.Generator | None) -> None:
    """Raise ConfigError when the arguments of ``frame_indices`` cannot work for any video."""
    by_rate = re.fullmatch(r"fps(\d+(\.\d+)?)", sampling)
    if by_rate and float(by_rate[1]) > 0:
        return
    if sampling not in ("middle", "rand"):
        raise ConfigError(
            f"frame sampling '{sampling}': use 'middle', 'rand' or 'fps' with a number, as 'fps1'"
        )
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}: at least 1 is needed")
    if sampling == "rand" and rng is None:
        raise ConfigError("frame sampling 'rand' needs a generator (unival.core.seeding.rng_for)")


def _by_rate(num_frames: int, length: int, wanted: float, fps: float | None) -> list[int]:
    if not fps or fps <= 0:
        raise ConfigError(f"frame sampling 'fps{wanted:g}' needs the video's frame rate, which is {fps}")
    step = 1.0 / wanted
    seconds = np.arange(step / 2, length / fps + step / 2, step)
    indices = [int(i) for i in np.around(seconds * fps) if i < length] or [0]
    return indices[:num_frames] if num_frames > 0 else indices


def variable_times(
    packets: Sequence[tuple[int | None, int | None]], seconds: float | None
) -> tuple[np.ndarray | None, float | None]:
    """Return when the frames of a video of varying rate appear (float64, ascending, the first at 0), in units of
    its mean frame duration, and its mean rate in frames a second; (None, None) for a constant rate.

    packets: (time stamp, duration) of each frame in the units that last ``seconds``. Frames that are late or early
    by up to 1.5 frames or 2 % of the video, as rounding, dropped frames and changes of the clock make them, do not
    make the rate vary: the reference counts frames, and for such videos so does this.
    """
    stamps = np.array([stamp for stamp, _ in packets if stamp is not None], dtype=np.float64)
    if seconds is None or len(stamps) < 3 or len(stamps) < len(packets):
        return None, None
    last = int(stamps.argmax())
    stamps.sort()
    steps = np.diff(stamps)
    length = stamps[-1] - stamps[0] + float(packets[last][1] or np.median(steps))
    if steps.max() == 0 or steps.max() > 0.6 * length:  # no stamps, or one that is damaged
        return None, None
    mean = length / len(stamps)
    times = (stamps - stamps[0]) / mean
    if np.abs(times - np.arange(len(times))).max() <= max(1.5, 0.02 * len(times)):
        return None, None
    return times, 1.0 / (mean * seconds)


def shown_at(indices: Sequence[int], times: np.ndarray | None) -> list[int]:
    """Return the frames shown where frames of a constant rate would be: in the middle of each one's time."""
    if times is None:
        return list(indices)
    middles = np.asarray(indices) + 0.5
    return [int(i) for i in np.searchsorted(times, middles, side="right") - 1]
