"""Decoded media on disk are those of the files, whoever wrote them, and nothing half-written or damaged is read."""

from __future__ import annotations

import base64
import multiprocessing
import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from unival.media import Limits, MediaError, MediaLoader
from unival.media.kept import ENDING, KeptMedia, used

RATE = 8000


@pytest.fixture()
def media(tmp_path: Path) -> Path:
    """A large picture, a turned one, a clip of 20 frames and a sound of another rate."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8))
    coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    coarse.resize((400, 300)).save(tmp_path / "turned.jpg", exif=exif)
    with av.open(tmp_path / "clip.mp4", "w") as container:
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(20):
            picture = Image.fromarray(rng.integers(0, 255, (8, 12, 3), np.uint8)).resize((96, 64))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(22050) / 9).astype(np.float32), 22050)
    return tmp_path


def keeping(folder: Path, root: Path, limit: float = 1e9, **settings: object) -> MediaLoader:
    loader = MediaLoader(root, **settings)  # type: ignore[arg-type]
    loader.kept = KeptMedia(folder, {"Pillow": "1"}, int(limit))
    return loader


def everything(loader: MediaLoader) -> list[np.ndarray]:
    drafts = [loader.draft(name, 64) for name in ("a.jpg", "turned.jpg")]
    return [
        np.asarray(loader.image("a.jpg")),
        np.asarray(loader.image("turned.jpg")),
        *(np.asarray(draft.image) for draft in drafts),
        np.array([draft.size for draft in drafts]),
        loader.video("clip.mp4", 4),
        loader.video("clip.mp4", 0, "fps5"),
        loader.audio("tone.wav", RATE),
    ]


def test_media_are_decoded_once_and_are_those_of_the_files(media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    plain = everything(MediaLoader(media))
    first = everything(keeping(folder, media))
    files = sorted(folder.glob(f"*/*{ENDING}"))
    assert len(files) == 7 and used(folder) > 1600 * 1200 * 3
    for name in ("a.jpg", "turned.jpg", "clip.mp4", "tone.wav"):
        status = os.stat(media / name)
        (media / name).write_bytes(bytes(status.st_size))  # as large and as old, but no medium any more
        os.utime(media / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        later = pool.apply(everything, (keeping(folder, media),))
    for values, others in ((plain, first), (plain, later)):
        assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(values, others, strict=True))
    again = keeping(folder, media).audio("tone.wav", RATE)
    again *= 0.5  # whoever reads it may write into it
    assert np.array_equal(keeping(folder, media).audio("tone.wav", RATE), plain[-1])
    assert sorted(folder.glob(f"*/*{ENDING}")) == files


def test_another_file_limit_library_or_way_is_decoded_anew(media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    keeping(folder, media).image("a.jpg")
    with pytest.raises(MediaError, match="the limit is 1000"):
        keeping(folder, media, limits=Limits(image_pixels=1000)).image("a.jpg")
    other = keeping(folder, media)
    assert other.kept is not None
    other.kept.versions = {"Pillow": "2"}
    other.image("a.jpg")
    assert len(list(folder.glob("*/*"))) == 2
    Image.new("RGB", (5, 5), "red").save(media / "a.jpg")
    assert keeping(folder, media).image("a.jpg").size == (5, 5)
    text = base64.b64encode((media / "turned.jpg").read_bytes()).decode()
    assert np.array_equal(keeping(folder, media).image(text), keeping(folder, media).image("turned.jpg"))


def test_random_frames_are_drawn_anew(media: Path, tmp_path: Path) -> None:
    loader, draws = keeping(tmp_path / "kept", media), np.random.default_rng(1)
    for _ in range(2):
        loader.video("clip.mp4", 4, "rand", draws)
    assert not (tmp_path / "kept").exists()
    same = np.random.default_rng(1)
    for _ in range(2):
        MediaLoader(media).video("clip.mp4", 4, "rand", same)
    assert draws.bit_generator.state == same.bit_generator.state


def test_what_is_damaged_or_unfinished_is_not_read(media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    wanted = keeping(folder, media).audio("tone.wav", RATE)
    (file,) = folder.glob(f"*/*{ENDING}")
    whole = file.read_bytes()
    for damaged in (b"", whole[:9], whole[: len(whole) // 2], whole[:200] + b"\xff" + whole[201:]):
        file.write_bytes(damaged)
        assert np.array_equal(keeping(folder, media).audio("tone.wav", RATE), wanted)
        assert file.read_bytes() == whole  # it was mended


def test_a_full_or_closed_folder_ends_the_keeping_and_nothing_else(
    media: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = keeping(tmp_path / "small", media, limit=1e6)
    assert np.array_equal(small.image("a.jpg"), MediaLoader(media).image("a.jpg"))
    assert "no more are kept" in caplog.text and "--keep-media-limit" in caplog.text
    assert not (tmp_path / "small").exists()
    (tmp_path / "file").write_text("no folder")
    closed = keeping(tmp_path / "file", media)
    assert len(closed.audio("tone.wav", RATE)) == len(MediaLoader(media).audio("tone.wav", RATE))
    assert "cannot" in caplog.text


def test_bad_media_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"bad\.jpg"):
        keeping(tmp_path / "kept", tmp_path).image("bad.jpg")
    assert not (tmp_path / "kept").exists()
