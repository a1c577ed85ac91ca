"""Media in memory: an object is seen as the file with the same content is."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from unival.media import Limits, MediaError, MediaLoader, read_audio, read_image
from unival.media.inputs import as_reference, modality_of

RAMP = np.arange(64).reshape(8, 8)
RGB = np.stack([RAMP * 4, RAMP * 2, 255 - RAMP], -1).astype(np.uint8)
ALPHA = np.concatenate([RGB, (RAMP * 4)[..., None].astype(np.uint8)], -1)


def pictures() -> dict[str, tuple[str, Image.Image]]:
    """Name -> (format of a file that keeps it, picture)."""
    palette = Image.fromarray(RGB).quantize(8)
    palette.info["transparency"] = 3
    keyed = Image.fromarray(RGB)
    keyed.info["transparency"] = tuple(int(c) for c in RGB[2, 3])
    return {
        "rgba": ("png", Image.fromarray(ALPHA)),
        "grey with alpha": ("png", Image.fromarray(ALPHA[..., 2:], "LA")),
        "16 bit": ("png", Image.fromarray((RAMP * 1000).astype(np.uint16))),
        "32 bit": ("tiff", Image.fromarray((RAMP * 900).astype(np.int32))),
        "float 0..1": ("tiff", Image.fromarray((RAMP / 63).astype(np.float32))),
        "float, any": ("tiff", Image.fromarray((RAMP * 70.0 - 900).astype(np.float32))),
        "one bit": ("png", Image.fromarray(RAMP % 3 == 0)),
        "palette with a transparent colour": ("png", palette),
        "rgb with a transparent colour": ("png", keyed),
        "cmyk": ("tiff", Image.fromarray(RGB).convert("CMYK")),
        "rgb": ("png", Image.fromarray(RGB)),
    }


@pytest.mark.parametrize("name", list(pictures()))
def test_a_picture_in_memory_is_what_its_file_is(name, tmp_path):
    """Transparency was black instead of white in memory, more than 8 bits were clipped."""
    kind, picture = pictures()[name]
    path = tmp_path / f"p.{kind}"
    extra = {"transparency": picture.info["transparency"]} if "transparency" in picture.info else {}
    picture.save(path, **extra)
    expected = np.asarray(read_image(path))
    loader = MediaLoader()
    with Image.open(path) as opened:
        assert np.array_equal(np.asarray(loader.image(opened)), expected)
        if "transparency" not in opened.info and opened.mode != "CMYK":
            pixels = np.asarray(opened)
            for form in (pixels, torch.from_numpy(pixels.astype(pixels.dtype.newbyteorder("=")))):
                assert np.array_equal(np.asarray(loader.image(form)), expected), form.dtype
    assert loader.image_size(picture) == (8, 8)


def test_arrays_of_other_kinds():
    loader = MediaLoader()
    wide = RGB.astype(np.uint16) * 257
    halves = [torch.from_numpy(RGB / 255).to(kind) for kind in (torch.float64, torch.bfloat16)]
    for form, slack in ((wide, 0), (halves[0], 0), (halves[1], 1), (torch.from_numpy(RGB).to_sparse(), 0)):
        found = np.asarray(loader.image(as_reference(form))).astype(int)
        assert abs(found - RGB).max() <= slack
    clip = np.stack([RGB, RGB])
    for form in (clip, clip.astype(np.uint16) * 257, torch.from_numpy(clip / 255)):
        assert np.array_equal(loader.video(form, 2), clip)


def test_a_sound_in_memory_is_what_its_file_is(tmp_path):
    wave = np.random.default_rng(1).uniform(-1.5, 1.5, (5000, 2)).astype(np.float32)
    wave[7] = np.nan
    soundfile.write(tmp_path / "s.wav", wave, 22050, subtype="FLOAT")
    expected = read_audio(tmp_path / "s.wav", 16000)
    for form in (wave.T, torch.from_numpy(wave.T), wave.T.astype(np.float64)):
        assert np.array_equal(MediaLoader().audio((form, 22050), 16000), expected)
    assert len(MediaLoader().audio(wave[:, 0], 16000)) == 5000
    with pytest.raises(MediaError, match="the limit"):
        MediaLoader(limits=Limits(audio_seconds=0.1)).audio((wave.T, 22050), 16000)


def closed() -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "png")
    picture = Image.open(file)
    picture.close()
    return picture


def cut() -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "png")
    return Image.open(io.BytesIO(file.getvalue()[:600]))


REFUSED = {
    "closed picture": (closed, "decoded|closed"),
    "cut picture": (cut, "decoded"),
    "no pixels": (lambda: Image.new("RGB", (0, 4)), "no pixels"),
    "meta tensor": (lambda: torch.empty(3, 8, 8, device="meta"), "content"),
    "numbers": (lambda: np.full((8, 8, 3), 300), "pixels are uint8"),
    "0..255 as floats": (lambda: RGB.astype(np.float32), "0..1, not float32 from"),
    "complex": (lambda: np.ones((8, 8), complex), "pixels are"),
    "objects": (lambda: np.array([[{}]], object), "pixels are"),
    "five channels": (lambda: np.zeros((8, 8, 5), np.uint8), "expected a path"),
    "nan": (lambda: np.full((8, 8), np.nan), "pixels are"),
    "channels last sound": (lambda: (np.zeros((9000, 2), np.float32), 16000), "transpose"),
    "rate that is no number": (lambda: (np.zeros(9000, np.float32), "16k"), "sample rate is '16k'"),
    "rate below one": (lambda: (np.zeros(9000, np.float32), 0), "sample rate is 0"),
    "sound of whole numbers": (lambda: np.zeros(9000, np.int16), "float array"),
    "tuple of three": (lambda: (1, 2, 3), "expected a path"),
    "number": (lambda: 3, "expected a path"),
    "mapping": (lambda: {"path": "a.jpg"}, "expected a path"),
    "closed file": (lambda: _closed_file(), "closed"),
}


def _closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_no_medium_is_a_media_error(name):
    make, expected = REFUSED[name]
    with pytest.raises(MediaError, match=expected):
        reference = as_reference(make())
        kind = modality_of(reference)
        loader = MediaLoader()
        loader.audio(reference, 16000) if kind == "audio" else loader.image(reference)
