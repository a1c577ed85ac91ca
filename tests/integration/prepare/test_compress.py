"""Compression of real files: sizes, times, sound, failures, going on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from tests.support.checks import group_is_gone
from unival.cli import main
from unival.datatools.compress import compress_all, folder_jobs
from unival.datatools.transcode import Compression, Job
from unival.media import read_audio, read_video

SHARED = Path(__file__).resolve().parents[4] / "shared" / "media" / "videos"


def movie(path: Path, seconds: float = 2.0, size: tuple[int, int] = (480, 360), sound: bool = True) -> None:
    """A clip at 24 frames a second whose brightness is its time, with a tone of 440 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        tone = container.add_stream("aac", rate=32_000, layout="stereo") if sound else None
        count = round(24 * seconds)
        for n in range(count):
            pixels = np.full((size[1], size[0], 3), 20 + 200 * n // count, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
        if tone is not None:
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(32_000 * seconds)) / 32_000)
            for start in range(0, len(wave), 1024):
                block = np.repeat(wave[None, start : start + 1024], 2, 0).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(block), format="fltp", layout="stereo"
                )
                frame.sample_rate, frame.pts, frame.time_base = 32_000, start, Fraction(1, 32_000)
                container.mux(tone.encode(frame))
            container.mux(tone.encode())


def streams(path: Path) -> dict[str, object]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video))
        return {
            "size": (video.width, video.height),
            "rate": float(video.average_rate),
            "frames": frames,
            "sound": [s.sample_rate for s in container.streams.audio],
        }


@pytest.fixture
def media(tmp_path):
    movie(tmp_path / "in" / "a" / "clip.mp4")
    movie(tmp_path / "in" / "small.mkv", 1.0, (64, 96), sound=False)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "in" / "notes.txt").write_text("no media")
    return tmp_path


def command(*arguments: object) -> int:
    return main(["data", "compress", *map(str, arguments)])


def test_video_without_sound(media, capsys):
    assert command(media / "in", media / "out") == 1
    assert "2 made, 0 already there, 1 failed" in capsys.readouterr().out
    assert streams(media / "out/a/clip.mp4") == {"size": (298, 224), "rate": 3.0, "frames": 6, "sound": []}
    assert streams(media / "out/small.mp4")["size"] == (64, 96), "never enlarged"
    assert not (media / "out/broken.mp4").exists(), "a failure is not copied"
    failed = (media / "out/failed.tsv").read_text().splitlines()
    assert len(failed) == 1 and failed[0].startswith("broken.mp4\t")
    brightness = read_video(str(media / "out/a/clip.mp4"), 6).mean(axis=(1, 2, 3))
    assert np.allclose(brightness, [20 + 200 * n / 6 for n in range(6)], atol=8), "frames of their times"

    made = (media / "out/a/clip.mp4").stat().st_mtime_ns
    assert command(media / "in", media / "out") == 1
    assert "0 made, 2 already there, 1 failed" in capsys.readouterr().out
    assert (media / "out/a/clip.mp4").stat().st_mtime_ns == made
    assert command(media / "in", media / "out", "--fps", "2") == 2
    assert "was made with" in capsys.readouterr().err


def test_sound_kept_or_taken_out(media):
    (media / "in/broken.mp4").unlink()
    (media / "in/small.mkv").unlink()
    shutil.copy(media / "in/a/clip.mp4", media / "in/b.mp4")
    soundfile.write(media / "in/tone.flac", np.zeros((8000, 2)), 8000)
    assert command(media / "in", media / "sound", "--keep", "sound") == 0
    info = soundfile.info(media / "sound/b.wav")
    assert (info.samplerate, info.channels, info.subtype) == (48_000, 1, "PCM_16")
    assert abs(info.frames - 96_000) < 5000
    assert soundfile.info(media / "sound/tone.wav").frames == 48_000
    assert command(media / "in", media / "both", "--keep", "video+sound", "--side", "100") == 0
    found = streams(media / "both/b.mp4")
    assert found["size"] == (134, 100) and found["sound"] == [48_000] and found["frames"] == 6
    wave = read_audio(str(media / "both/b.mp4"), 48_000)
    spectrum = np.abs(np.fft.rfft(wave[24_000:72_000]))
    assert np.argmax(spectrum) == 440


def test_segments_are_cut(media):
    lines = [
        {"source": "a/clip", "start": 1.0, "end": 2.0, "target": "x_0.mp4"},
        {"source": "a/clip", "start": 5.0, "end": 6.0, "target": "x_1.mp4"},
        {"source": "a/clip", "start": 1.0, "end": 1.0, "target": "x_2.mp4"},
        {"source": "absent", "start": 0.0, "end": 1.0, "target": "x_3.mp4"},
    ]
    place = media / "segments.jsonl"
    place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert command(media / "in", media / "cut", "--segments", place) == 1
    assert streams(media / "cut/x_0.mp4")["frames"] == 3
    first = read_video(str(media / "cut/x_0.mp4"), 3)[0].mean()
    assert abs(first - 120) < 8, "the picture of second 1"
    failed = dict(line.split("\t") for line in (media / "cut/failed.tsv").read_text().splitlines())
    assert "no frame after 5 s" in failed["x_1.mp4"] and "before it starts" in failed["x_2.mp4"]
    assert "no such file" in failed["x_3.mp4"]
    assert command(media / "in", media / "heard", "--segments", place, "--keep", "sound") == 1
    assert abs(soundfile.info(media / "heard/x_0.wav").frames - 48_000) < 10
    place.write_text('{"source": "a/clip", "start": 0, "end": 1, "target": "../x.mp4"}\n')
    assert command(media / "in", media / "away", "--segments", place) == 2


def test_two_processes_give_the_same_files(media):
    how = Compression()
    one = compress_all(folder_jobs(media / "in", how), media / "one", how)
    two = compress_all(folder_jobs(media / "in", how), media / "two", how, processes=2)
    assert one[:2] == two[:2] == (2, 0) and set(one[2]) == set(two[2]) == {"broken.mp4"}
    assert (media / "one/a/clip.mp4").read_bytes() == (media / "two/a/clip.mp4").read_bytes()


KILLED = """
import os, sys
from pathlib import Path
from unival.datatools import compress
from unival.datatools.compress import compress_all, folder_jobs
from unival.datatools.transcode import Compression

real = compress.compress
def dies(job, target, how):
    if job.target == "small.mp4":
        target.write_bytes(b"half a file")
        os.kill(os.getpid(), 9)
    real(job, target, how)

compress.compress = dies
compress_all(folder_jobs(Path(sys.argv[1]), Compression()), Path(sys.argv[2]), Compression())
"""


def test_goes_on_after_a_kill(media):
    done = subprocess.run([sys.executable, "-c", KILLED, media / "in", media / "out"])
    assert done.returncode == -9
    assert (media / "out/a/clip.mp4").exists() and not (media / "out/small.mp4").exists()
    how = Compression()
    made, there, failed = compress_all(folder_jobs(media / "in", how), media / "out", how)
    assert (made, there, set(failed)) == (1, 1, {"broken.mp4"})
    assert streams(media / "out/small.mp4")["frames"] == 3
    left = [p.name for p in (media / "out").iterdir() if p.name.startswith(".working")]
    assert not left


def test_a_process_that_dies_costs_no_other_file(tmp_path):
    for name in ("long", "b", "c", "d", "e", "f"):
        movie(tmp_path / "in" / f"{name}.mp4", 40.0 if name == "long" else 0.5, (320, 240), sound=False)
    how, result = Compression(), []
    jobs = sorted(folder_jobs(tmp_path / "in", how), key=lambda job: job.target != "long.mp4")
    thread = threading.Thread(target=lambda: result.append(compress_all(jobs, tmp_path / "out", how, 2)))
    thread.start()
    killed = 0
    while thread.is_alive() and not killed:
        time.sleep(0.01)
        for mark in (tmp_path / "out").glob(".working-*"):
            if mark.read_text() == "long.mp4":
                killed = int(mark.name.rpartition("-")[2])
                os.kill(killed, signal.SIGKILL)
    thread.join()
    assert killed and result == [(6, 0, {})]
    assert streams(tmp_path / "out" / "long.mp4")["frames"] == 120


def test_ctrl_c_ends_at_once_with_one_line(tmp_path):
    """Every process printed a traceback, and the first one waited for the files in work."""
    for name in ("a", "long", "other"):
        seconds = 0.5 if name == "a" else 120.0
        movie(tmp_path / "in" / f"{name}.mp4", seconds, (320, 240), sound=False)
    out = tmp_path / "out"
    words = ["-m", "unival", "data", "compress", tmp_path / "in", out, "--processes", "2", "--side", "224"]
    running = subprocess.Popen(
        [sys.executable, *map(str, words)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    # the first four files are the work of one process: a is done, one of the others in work
    while not ((out / "a.mp4").exists() and list(out.glob(".working-*"))):
        assert running.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, errors = running.communicate(timeout=120)
    assert (running.returncode, errors.splitlines()) == (130, ["interrupted"])
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "compress.json"]
    assert group_is_gone(running.pid)
    jobs = folder_jobs(tmp_path / "in", Compression(side=224))
    assert sum((out / job.target).exists() for job in jobs) == 1  # the same command goes on with two


def test_settings_are_checked(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("x.mp4", "x.avi"):
        (tmp_path / "in" / name).write_bytes(b"")
    assert command(tmp_path / "in", tmp_path / "out") == 2
    assert "both become x.mp4" in capsys.readouterr().err
    assert command(tmp_path / "none", tmp_path / "out") == 2
    assert command(tmp_path / "in", tmp_path / "out", "--fps", "0") == 2
    assert "0 < fps" in capsys.readouterr().err


@pytest.mark.shared
@pytest.mark.parametrize(
    "name, size",
    [
        ("decord__video_90.mov", None),
        ("torchcodec__testsrc2_odd_height_and_width_vp9.mp4", None),
        ("test-images__cockatoo.mp4", None),
        ("lhotse__big_buck_bunny_small.mp4", None),
        ("mp4parse-rust__metadata_gnre.mp4", None),
        ("mp4parse-rust__short-cenc.mp4", "failure"),
    ],
)
def test_nasty_videos(tmp_path, name, size):
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared is absent")
    how = Compression(side=48, fps=2)
    made, _, failed = compress_all([Job(SHARED / name, "x.mp4", 0.0, 3.0)], tmp_path / "out", how)
    assert os.listdir(tmp_path / "out")
    if size == "failure":
        assert made == 0 and failed and not (tmp_path / "out/x.mp4").exists()
        return
    assert made == 1, failed
    frames = read_video(str(tmp_path / "out/x.mp4"), 2)
    original = read_video(str(SHARED / name), 2)
    assert min(frames.shape[1:3]) <= 48
    ratio = frames.shape[2] / frames.shape[1] / (original.shape[2] / original.shape[1])
    assert 0.9 < ratio < 1.1, "upright as the reader shows it"
    assert abs(float(frames[0].mean()) - float(original[0].mean())) < 40
