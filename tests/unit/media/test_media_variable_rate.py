"""Videos whose frame rate varies: frames by the time at which they are shown; a constant rate changes nothing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from unival.media import read_video
from unival.media.frames import frame_indices, shown_at, variable_times


def clip(path: Path, times: list[float]) -> Path:
    """A clip of 10 seconds whose brightness says the time: 255 is second 10."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 32
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size, stream.codec_context.bit_rate = 1, 4_000_000
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), round(time * 25.5), np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def seconds(path: Path, *arguments: object) -> np.ndarray:
    frames = read_video(path, *arguments)  # type: ignore[arg-type]
    return frames.reshape(len(frames), -1).mean(1) / 25.5


FAST_THEN_SLOW = [*np.arange(0, 2, 1 / 60), *np.arange(2, 10, 0.5)]
SLOW_THEN_FAST = [*np.arange(0, 5, 0.2), *np.arange(5, 10, 1 / 30)]


@pytest.mark.parametrize("times", [FAST_THEN_SLOW, SLOW_THEN_FAST])
def test_centres_of_equal_parts_of_the_time(times: list[float], tmp_path: Path) -> None:
    """All four lay in the first two seconds, where most frames are."""
    path = clip(tmp_path / "v.mp4", times)
    gap, part = max(np.diff(times)), times[-1] / 4  # the file does not say how long its last frame is shown
    assert np.abs(seconds(path, 4) - part * np.array([0.5, 1.5, 2.5, 3.5])).max() <= gap + 0.15
    by_rate = seconds(path, 0, "fps1")
    assert len(by_rate) in (9, 10) and np.abs(np.diff(by_rate) - 1).max() <= gap + 0.15
    drawn = seconds(path, 4, "rand", np.random.default_rng(0))
    assert all(part * k - gap - 0.1 <= time <= part * (k + 1) + 0.1 for k, time in enumerate(drawn))


@pytest.mark.parametrize("rate", [5.0, 29.97, 60.0])
def test_a_constant_rate_is_counted(rate: float) -> None:
    """Rounded stamps, some dropped frames, durations that are not there and stamps out of order change nothing."""
    count, random = int(10 * rate), np.random.default_rng(1)
    exact = [round(n * 1000 / rate) for n in range(count)]
    dropped = [stamp for n, stamp in enumerate(exact) if n % 97 != 50]
    reordered = [exact[n] for n in np.argsort(np.arange(count) + random.uniform(0, 3, count))]
    for stamps in (exact, dropped, reordered):
        for duration in (round(1000 / rate), None, 0):
            assert variable_times([(stamp, duration) for stamp in stamps], 0.001) == (None, None)
    assert variable_times([(None, 1)] * 50, 0.001) == (None, None)
    assert variable_times([(0, 1)] * 50, 0.001) == (None, None)
    assert variable_times([(2**n, None) for n in range(50)], None) == (None, None)
    chosen = frame_indices(4, count)
    assert shown_at(chosen, None) == chosen == shown_at(chosen, np.arange(count, dtype=np.float64))
