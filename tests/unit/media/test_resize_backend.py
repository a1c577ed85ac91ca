"""``resize_backend: torchvision`` against Pillow's resize: how far pixels differ, and what stays as it is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.media.test_media_transforms import noise
from unival.core.seeding import rng_for
from unival.errors import ConfigError
from unival.media import MediaError, grounding_train, image_eval, image_train, read_image
from unival.media.features import Shelf
from unival.media.image import read_draft
from unival.media.loader import MediaLoader
from unival.specs import SpecOptions
from unival.specs.grounding import ground_image
from unival.specs.inputs import load_media
from unival.tables.row import Row

FAST = SpecOptions(patch_image_size=64, resize_backend="torchvision")
EXACT = SpecOptions(patch_image_size=64)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with the noise of a camera."""
    coarse = Image.fromarray(noise(12, 16, seed=seed)).resize((width, height), Image.Resampling.BICUBIC)
    grain = noise(height, width, seed=seed + 1).astype(np.int16) // 11 - 12
    return Image.fromarray((np.asarray(coarse, np.int16) + grain).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(content, "JPEG", quality=90, exif=exif)
    return content.getvalue()


def levels(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Absolute differences in levels of 0..255."""
    return (one - other).abs() * 127.5


def loaded(content: bytes, options: SpecOptions) -> dict:
    return load_media(Row({"image": content}, "t", 1), "image", MediaLoader(), options, None, False)


@pytest.mark.parametrize("size", [64, 224, 384])
@pytest.mark.parametrize("shape", [(640, 480), (480, 640), (1200, 900), (50, 37), (1200, 90)])
def test_a_resize_differs_by_a_level(shape: tuple[int, int], size: int) -> None:
    """Measured, photographs and uniform noise: shrunk 1 and 0.0045 in the mean, enlarged 2 and 0.0077."""
    enlarged = min(shape) < size
    for image in (photograph(*shape), Image.fromarray(noise(*shape[::-1]))):
        apart = levels(image_eval(image, size, backend="torchvision"), image_eval(image, size))
        assert 0 < apart.max() < (2.001 if enlarged else 1.001)
        assert apart.mean() < (0.009 if enlarged else 0.006)


def test_augmentation_draws_the_same() -> None:
    image, box = photograph(320, 240), (100, 60, 180, 150)
    for number in range(4):
        one, other = (
            (
                image_train(image, 64, rng=rng_for(7, 1, number), backend=backend),
                grounding_train(image, box, 64, rng=rng_for(7, 2, number), region_crop=True, backend=backend),
            )
            for backend in ("pillow", "torchvision")
        )
        assert one[1].box == other[1].box and one[1].resize == other[1].resize
        assert levels(one[1].image, other[1].image).max() < 1.001
        assert levels(one[0], other[0]).mean() < 0.5  # colours are stretched after the resize


@pytest.mark.parametrize(
    ("size", "decoded"), [(32, (200, 150)), (64, (200, 150)), (128, (400, 300)), (256, (800, 600))]
)
def test_large_jpeg_files_are_decoded_at_a_fraction(size: int, decoded: tuple[int, int]) -> None:
    """Measured: at most 2 levels, 0.25 in the mean."""
    content = jpeg(photograph(1600, 1200))
    assert read_draft(content, size).image.size == decoded
    exact, fast = (loaded(content, replace(options, patch_image_size=size)) for options in (EXACT, FAST))
    assert fast["size"] == exact["size"] == (1600, 1200)
    apart = levels(fast["media"], exact["media"])
    assert 0.1 < apart.mean() < 0.4 and apart.max() < 4


def test_what_is_decoded_whole() -> None:
    """Files of less than four times the size, other formats, media in memory, and what is cropped."""
    picture = photograph(1600, 1200)
    content = jpeg(picture)
    assert read_draft(content, 384).image.tobytes() == read_image(content).tobytes()
    png = io.BytesIO()
    picture.save(png, "PNG", compress_level=1)
    assert read_draft(png.getvalue(), 64).image.size == picture.size
    assert MediaLoader().draft(picture, 64) == (picture, picture.size)
    exact, fast = (loaded(content, replace(o, no_image_transform=True)) for o in (EXACT, FAST))
    assert torch.equal(exact["media"], fast["media"]), "a crop is made of the original's pixels"
    with pytest.raises(MediaError, match="truncated"):
        read_draft(content[: len(content) // 2], 64)


def test_boxes_are_about_the_original() -> None:
    """A picture that is stored lying on its side, decoded at an eighth."""
    content, box = jpeg(photograph(1601, 1203), orientation=6), (300.0, 500.0, 900.0, 1400.0)
    assert read_draft(content, 64).size == (1203, 1601) and read_draft(content, 64).image.size == (151, 201)
    row = Row({"image": content}, "t", 1)
    exact, fast = (ground_image(row, box, MediaLoader(), options, 1000) for options in (EXACT, FAST))
    assert exact[1:] == fast[1:] and exact[0]["size"] == fast[0]["size"] == (1203, 1601)
    assert exact[0]["resize"] == fast[0]["resize"]
    for number in range(3):
        cropped = [
            ground_image(
                row, box, MediaLoader(), options, 1000, rng_for(1, 1, number), True, pretraining=True
            )
            for options in (EXACT, FAST)
        ]
        bins = [np.array(found[2]) for found in cropped]
        assert np.abs(bins[0] - bins[1]).max() <= 2, "a draft's sides are rounded: a pixel of 64"


def test_kept_features_are_of_one_backend(tmp_path: Path) -> None:
    photograph(80, 60).save(tmp_path / "a.png")
    loader = MediaLoader(root=tmp_path)
    loader.features = Shelf(tmp_path / "shelf", {"image": "hash"}, 1 << 30)
    places = [
        load_media(Row({"image": "a.png"}, "t", 1), "image", loader, options, None, False)["place"]
        for options in (EXACT, FAST)
    ]
    assert places[0].medium == places[1].medium and places[0].name != places[1].name


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ConfigError, match=r"resize_backend 'torchvison' is not one of .*'torchvision'"):
        SpecOptions(resize_backend="torchvison")
