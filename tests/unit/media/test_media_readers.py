"""The three readers on files written here: every kind of source, every kind of damage, one exception."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from unival.core.seeding import rng_for
from unival.errors import ConfigError, UnivalError
from unival.media import Limits, MediaError, read_audio, read_image, read_video


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    """Red grows to the right, green downwards, blue fixed: every orientation looks different."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 0 * x + 80], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_video(
    path: Path, frames: int = 20, codec: str = "libx264", rotation: int | None = None, **options: str
) -> Path:
    """Frame i is grey of brightness 10 * i, its upper left quarter white, its lower left one noise."""
    import av

    rng = np.random.Generator(np.random.Philox(0))

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = {"gif": "rgb8", "libx264": "yuv420p"}[codec]
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i in range(frames):
            array = np.full((48, 64, 3), 10 * i, np.uint8)
            array[:24, :32] = 255
            array[24:, :32] = rng.integers(0, 256, (24, 32, 3))
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


# ---- images


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(gradient())
    # What a camera stores so that the tag's transform gives the upright picture.
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(
        upright.transpose(stored) if stored is not None else upright, "JPEG", quality=95, exif=exif
    )
    got = read_image(data)
    assert (got.mode, got.size) == ("RGB", (60, 40))
    # Measured error of JPEG compression at quality 95: 6 grey levels.
    assert np.abs(np.asarray(got).astype(int) - gradient()).max() <= 10


def test_damaged_exif_does_not_lose_the_image() -> None:
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(data).size == (60, 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGB"])
def test_opaque_modes_equal_pillows_conversion(mode: str) -> None:
    if mode == "YCbCr" and PIL.__version__.startswith("12."):
        pytest.skip("Pillow 12 cannot read its own YCbCr TIFF files")
    image = Image.fromarray(gradient()).convert(mode)
    data = encoded(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    with Image.open(io.BytesIO(data)) as reopened:
        expected = np.asarray(reopened.convert("RGB"))
    assert np.array_equal(np.asarray(read_image(data)), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white(mode: str) -> None:
    rgba = np.dstack([gradient(), np.full((40, 60), 255, np.uint8)])
    rgba[:10] = (200, 10, 10, 0)
    image = Image.fromarray(rgba)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    got = np.asarray(read_image(encoded(image, "PNG")))
    assert (got[:10] == 255).all()
    expected = np.asarray(image.convert("RGBA"))[10:, :, :3]
    assert np.array_equal(got[10:], expected)


def test_transparent_colour_of_a_png_shows_white() -> None:
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    got = np.asarray(read_image(encoded(image, "PNG", transparency=(1, 2, 3))))
    assert tuple(got[0, 0]) == (9, 9, 9) and (got[1:] == 255).all()


def test_opaque_alpha_changes_nothing() -> None:
    rgba = np.dstack([gradient(), np.full((40, 60), 255, np.uint8)])
    assert np.array_equal(np.asarray(read_image(encoded(Image.fromarray(rgba), "PNG"))), gradient())


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        got = np.asarray(read_image(encoded(Image.fromarray(levels), kind)))
        assert np.array_equal(got[..., 0].ravel(), np.arange(256)) and (got[..., 0] == got[..., 2]).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5], [1.0, 0.25]], np.float32), [[0, 128], [255, 64]]),
        (np.array([[0.0, 128.0], [255.0, 64.0]], np.float32), [[0, 128], [255, 64]]),
        (np.array([[-10.0, 0.0], [10.0, np.nan]], np.float32), [[0, 128], [255, 128]]),
        (np.array([[0, 300], [65535, 257]], np.int32), [[0, 1], [255, 1]]),
        (np.array([[0, 30], [255, 7]], np.int32), [[0, 30], [255, 7]]),
        (np.array([[7, 7], [7, 7]], np.int32) * 100000, [[0, 0], [0, 0]]),
    ],
)
def test_wide_values_are_scaled(values: np.ndarray, expected: list[list[int]]) -> None:
    got = np.asarray(read_image(encoded(Image.fromarray(values), "TIFF")))
    assert got[..., 0].tolist() == expected


def test_image_over_the_limit_names_value_limit_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("1", (1000, 300)).save(path)
    with pytest.raises(MediaError, match=r"wide\.png: .*300000 pixels, the limit is 1000: .*Limits"):
        read_image(path, limits=Limits(image_pixels=1000))
    before = Image.MAX_IMAGE_PIXELS
    assert read_image(path, limits=Limits(image_pixels=300_000)).size == (1000, 300)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_truncated_images_are_refused(kind: str) -> None:
    noise = np.random.Generator(np.random.Philox(1)).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for share in (0.02, 0.3, 0.7):
        with pytest.raises(MediaError):
            read_image(data[: int(len(data) * share)])


def test_animated_image_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), (i * 100, 0, 0)) for i in range(3)]
    data = encoded(frames[1], "GIF", save_all=True, append_images=frames[2:])
    assert np.asarray(read_image(data))[0, 0].tolist() == [100, 0, 0]


def test_postscript_is_not_run() -> None:
    with pytest.raises(MediaError, match="EPS"):
        read_image(encoded(Image.new("RGB", (8, 8)), "EPS"))


# ---- videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Key frames only at the start and B-frames: decoding order differs from the order shown.
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", g="250", bf="2", crf="12")


def levels(video: np.ndarray) -> list[int]:
    """The frame numbers that the brightness of the lower right quarter tells."""
    return [round(float(v) / 10) for v in video[:, 30:, 40:].mean(axis=(1, 2, 3))]


def test_frames_are_the_ones_asked_for(clip: Path) -> None:
    video = read_video(clip, 4)
    assert video.dtype == np.uint8 and video.shape == (4, 48, 64, 3)
    assert levels(video) == [2, 7, 12, 17]
    assert levels(read_video(clip, 20)) == list(range(20))
    assert levels(read_video(clip, 25)) == [*range(20), 19, 19, 19, 19, 19]
    assert levels(read_video(clip, 3, "fps1")) == [5, 15, 15]
    random = [levels(read_video(clip, 4, "rand", rng_for(1, 0, i))) for i in range(6)]
    assert random[0] == levels(read_video(clip, 4, "rand", rng_for(1, 0, 0)))
    assert len(set(map(tuple, random))) > 1 and all(r == sorted(r) for r in random)


def test_gif_is_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "moving.gif", codec="gif")
    assert levels(read_video(path, 4)) == [2, 7, 12, 17]


@pytest.mark.parametrize(
    ("rotation", "corner"),
    # Degrees counter-clockwise that a player turns the picture; where the white quarter ends up.
    [(None, (0, 0)), (90, (1, 0)), (180, (1, 1)), (-90, (0, 1)), (45, (0, 0))],
)
def test_rotation_is_honoured_when_it_is_a_quarter_turn(
    tmp_path: Path, rotation: int | None, corner: tuple[int, int]
) -> None:
    frame = read_video(write_video(tmp_path / "turned.mp4", 3, rotation=rotation), 1)[0]
    quarter_turn = rotation in (90, -90)
    assert frame.shape == ((64, 48, 3) if quarter_turn else (48, 64, 3))
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    bright = [frame[y * height :, x * width :][:height, :width].mean() > 200 for y in (0, 1) for x in (0, 1)]
    assert bright == [corner == (y, x) for y in (0, 1) for x in (0, 1)]


def test_cut_off_video_chooses_among_the_frames_that_are_left(tmp_path: Path) -> None:
    # Matroska needs no index at the end, so a cut leaves the first part readable.
    whole = write_video(tmp_path / "whole.mkv", 20, g="5")
    data = whole.read_bytes()
    cut = data[: int(len(data) * 0.6)]
    kept = levels(read_video(cut, 20))
    assert kept[0] == 0 and 2 <= max(kept) < 19 and kept == sorted(kept)
    assert levels(read_video(cut, 1)) == [max(kept) // 2]
    with pytest.raises(MediaError):
        read_video(data[:30], 4)


def test_damage_inside_a_video_is_skipped(clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 64] = bytes(64)
    video = read_video(bytes(data), 4)
    assert video.shape == (4, 48, 64, 3)
    assert np.array_equal(video, read_video(bytes(data), 4))


def test_cut_off_mp4_is_refused(clip: Path) -> None:
    with pytest.raises(MediaError, match="bytes>: "):
        read_video(clip.read_bytes()[:600], 4)


def test_video_limits(clip: Path) -> None:
    with pytest.raises(MediaError, match="64 x 48 = 3072 pixels, the limit is 3071"):
        read_video(clip, 1, limits=Limits(video_pixels=3071))
    with pytest.raises(MediaError, match="more than 19 packets"):
        read_video(clip, 1, limits=Limits(video_packets=19))
    assert read_video(clip, 1, limits=Limits(video_pixels=3072, video_packets=20)).shape[0] == 1


def test_a_playlist_cannot_reach_other_files(tmp_path: Path, clip: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile 'file:{clip}'\n")
    with pytest.raises(MediaError):
        read_video(playlist, 1)


def test_wrong_arguments_are_config_errors(clip: Path) -> None:
    with pytest.raises(ConfigError, match="'midle'"):
        read_video(clip, 4, "midle")
    with pytest.raises(ConfigError, match="generator"):
        read_video(clip, 4, "rand")
    with pytest.raises(ConfigError, match="num_frames is 0"):
        read_video(clip, 0)
    with pytest.raises(ConfigError, match="sample rate 0"):
        read_audio(clip, 0)


def test_pyav_is_loaded_by_the_workers_only(clip: Path) -> None:
    program = """
import sys, unival.media
from torch.utils.data import DataLoader
class Clips:
    def __len__(self): return 4
    def __getitem__(self, i):
        video = unival.media.read_video(sys.argv[1], 2)
        assert "av" in sys.modules
        return video.shape[0]
def main():
    loader = DataLoader(Clips(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    print([b.tolist() for b in loader], "av" in sys.modules)
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(clip)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == "[[2, 2], [2, 2]] False\n", done.stderr


# ---- audio


def wav(samples: np.ndarray, rate: int, **options: Any) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **{"format": "WAV", **options})
    return buffer.getvalue()


def test_wav_of_8_bits() -> None:
    got = read_audio(wav(tone(8000), 8000, subtype="PCM_U8"), 8000)
    assert got.dtype == np.float32
    # One step of 8 bits.
    assert np.abs(got - tone(8000)).max() <= 1 / 127


def test_stereo_flac_is_averaged_and_resampled() -> None:
    left = tone(44100)
    data = wav(np.stack([left, 0 * left], 1), 44100, format="FLAC", subtype="PCM_24")
    same = read_audio(data, 44100)
    assert np.abs(same - left / 2).max() < 1e-6
    got = read_audio(data, 48000)
    assert got.shape == (24000,)
    # Away from the ends, where the filter sees silence outside the clip. Measured: 6e-5.
    assert np.abs(got[500:-500] - tone(48000)[500:-500] / 2).max() < 2e-4


def test_resampling_equals_librosas(monkeypatch: pytest.MonkeyPatch) -> None:
    librosa, numba = pytest.importorskip("librosa"), pytest.importorskip("numba")
    # librosa compiles on import what resampling does not use, for a quarter of a minute on a new machine
    for name in ("guvectorize", "stencil", "jit"):
        monkeypatch.setattr(numba, name, lambda *_, **__: lambda function: function)
    for rate in (11025, 22050, 44100, 96000):
        wave = tone(rate, 0.2501)
        expected = librosa.resample(wave, orig_sr=rate, target_sr=48000)
        assert np.array_equal(read_audio(wav(wave, rate, subtype="FLOAT"), 48000), expected)


def test_float_samples_that_are_not_finite_become_silence() -> None:
    wave = tone(8000)
    wave[[5, 6, 7]] = [np.nan, np.inf, -np.inf]
    got = read_audio(wav(wave, 8000, subtype="FLOAT"), 8000)
    assert (got[[5, 6, 7]] == 0).all() and np.array_equal(got[8:], wave[8:])
    with pytest.raises(MediaError, match="finite"):
        read_audio(wav(np.full(10, np.nan, np.float32), 8000, subtype="FLOAT"), 8000)


def test_cut_off_audio_gives_what_is_there() -> None:
    data = wav(tone(8000), 8000, subtype="FLOAT")
    got = read_audio(data[: len(data) // 2], 8000)
    assert 1500 < len(got) < 2500 and np.array_equal(got, tone(8000)[: len(got)])


@pytest.mark.parametrize("cut", [0, 10, 44])
def test_audio_without_samples_is_refused(cut: int) -> None:
    with pytest.raises(MediaError):
        read_audio(wav(np.zeros(100, np.int16), 8000)[:cut], 8000)


def test_audio_limit() -> None:
    data = wav(tone(8000), 8000)
    assert len(read_audio(data, 8000, limits=Limits(audio_seconds=0.5))) == 4000
    with pytest.raises(MediaError, match=r"more than 0\.4 seconds, the limit"):
        read_audio(data, 8000, limits=Limits(audio_seconds=0.4))


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize(("codec", "kind"), [("aac", "mp4"), ("pcm_s16le", "mov"), ("pcm_u8", "mkv")])
def test_sound_of_a_video_file(tmp_path: Path, codec: str, kind: str, layout: str) -> None:
    import av

    path = tmp_path / f"film.{kind}"
    wave = tone(16000, 1.0)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=5)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=16000, layout=layout)
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 5)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        channels = 2 if layout == "stereo" else 1
        planes = np.stack([wave * (1, 0.5)[c] for c in range(channels)])
        block = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        block.sample_rate, block.pts = 16000, 0
        resampler = av.AudioResampler(format=sound.codec_context.format, layout=layout, rate=16000)
        for part in [*resampler.resample(block), *resampler.resample(None), None]:
            container.mux(sound.encode(part))
    got = read_audio(path, 16000)
    assert read_video(path, 2).shape == (2, 48, 64, 3)
    expected = wave * (0.75 if layout == "stereo" else 1.0)
    if codec == "aac":
        # AAC adds up to two frames of padding.
        assert abs(len(got) - len(wave)) <= 2048
        assert abs(got[4000:12000].std() - expected[4000:12000].std()) < 0.01
    else:
        # One step of 8 bits.
        assert len(got) == len(wave) and np.abs(got - expected).max() <= 1 / 100


# ---- sources and the exception


def test_the_three_kinds_of_source_agree(tmp_path: Path, clip: Path) -> None:
    picture, sound = tmp_path / "a.png", tmp_path / "a.wav"
    picture.write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
    sound.write_bytes(wav(tone(8000), 8000))
    readers: list[tuple[Path, Any]] = [
        (picture, lambda s: np.asarray(read_image(s))),
        (clip, lambda s: read_video(s, 3)),
        (sound, lambda s: read_audio(s, 16000)),
    ]
    for path, read in readers:
        expected = read(str(path))
        data = path.read_bytes()
        with open(path, "rb") as file:
            others = [path, data, bytearray(data), memoryview(data), io.BytesIO(data), file]
            for source in others:
                assert np.array_equal(read(source), expected)


@pytest.mark.parametrize("read", [read_image, lambda s: read_video(s, 2), lambda s: read_audio(s, 8000)])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.bin", "^absent.bin: no such file$"),
        ("zero\0byte.jpg", "is not a file name"),
        ("empty.bin", "^empty.bin: the file is empty"),
        (".", "is a folder"),
        ("text.bin", "^text.bin: "),
        (b"", "no content"),
        (b"\0" * 500, "^<500 bytes>: "),
        (io.StringIO("text"), "text mode"),
        (7, "not int"),
        (None, "not NoneType"),
    ],
)
def test_bad_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any, source: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.bin").touch()
    Path("text.bin").write_text("these are words, not media\n" * 20)
    with pytest.raises(MediaError, match=message) as caught:
        read(source)
    error = caught.value
    assert isinstance(error, UnivalError) and str(error) == f"{error.source}: {error.reason}"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MediaError and str(again) == str(error)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "mp4", "mkv", "wav", "flac"])
def test_random_damage_never_raises_another_type(tmp_path: Path, kind: str) -> None:
    """Each file with random bytes overwritten or cut off either decodes or is refused."""
    if kind in ("png", "jpg"):
        name = {"png": "PNG", "jpg": "JPEG"}[kind]
        data, read = encoded(Image.fromarray(gradient()), name), read_image
    elif kind in ("gif", "mp4", "mkv"):
        codec = "gif" if kind == "gif" else "libx264"
        data = write_video(tmp_path / f"v.{kind}", 8, codec).read_bytes()
        read = lambda s: read_video(s, 3)  # noqa: E731
    else:
        data, read = wav(tone(8000), 8000, format=kind.upper()), lambda s: read_audio(s, 16000)
    rng = np.random.Generator(np.random.Philox(5))
    outcomes = set()
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, len(data) if rng.random() < 0.5 else min(len(data), 400), 8):
            broken[place] = int(rng.integers(256))
        if rng.random() < 0.3:
            del broken[int(rng.integers(len(broken))) :]
        try:
            read(bytes(broken))
            outcomes.add("decoded")
        except MediaError:
            outcomes.add("refused")
    # The checksums of PNG leave no damage unseen.
    assert outcomes == ({"refused"} if kind == "png" else {"refused", "decoded"})
