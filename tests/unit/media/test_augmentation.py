"""Pixels that are worked out here for speed are those of torchvision and of Pillow's whole resize, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from unival.core.seeding import rng_for
from unival.media.augmentation import _AUGMENTATIONS, rand_augment
from unival.media.resize import centre, centre_crop, pixels_of, resized, resized_window
from unival.media.transforms_audio import int16_round_trip
from unival.media.transforms_image import normalisation, normalised

LEVEL = 0.7
Operation = Callable[[Tensor, float], Tensor]


def affine(
    pixels: Tensor, shear: tuple[float, float] = (0, 0), shift: tuple[int, int] = (0, 0), angle: float = 0
) -> Tensor:
    return functional.affine(
        pixels,
        angle=angle,
        translate=list(shift),
        scale=1.0,
        shear=[float(np.degrees(np.arctan(value))) for value in shear],
        interpolation=InterpolationMode.BILINEAR,
        fill=[128.0],
        center=[0.0, 0.0] if any(shear) else None,
    )


TORCHVISION: dict[str, Operation] = {
    "identity": lambda pixels, sign: pixels,
    "autocontrast": lambda pixels, sign: functional.autocontrast(pixels),
    "equalize": lambda pixels, sign: functional.equalize(pixels),
    "brightness": lambda pixels, sign: functional.adjust_brightness(pixels, LEVEL * 1.8 + 0.1),
    "sharpness": lambda pixels, sign: functional.adjust_sharpness(pixels, LEVEL * 1.8 + 0.1),
    "shear along x": lambda pixels, sign: affine(pixels, shear=(sign * LEVEL * 0.3, 0.0)),
    "shear along y": lambda pixels, sign: affine(pixels, shear=(0.0, sign * LEVEL * 0.3)),
    "shift along x": lambda pixels, sign: affine(pixels, shift=(round(sign * LEVEL * 10), 0)),
    "shift along y": lambda pixels, sign: affine(pixels, shift=(0, round(sign * LEVEL * 10))),
    "turn": lambda pixels, sign: affine(pixels, angle=sign * LEVEL * 30),
}


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3): smooth, noise between any two values, of two values, grey, or with a flat colour."""
    low, high = sorted(rng.integers(0, 256, 2))
    array = rng.integers(low, high + 1, (height, width, 3), dtype=np.uint8)
    kind = rng.integers(6)
    if kind == 0:
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        array = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    elif kind == 1:
        array = rng.choice(np.array([low, high], np.uint8), (height, width, 3))
    elif kind == 2:
        array = array[..., :1].repeat(3, axis=2)
    elif kind == 3:
        array[..., rng.integers(3)] = low
    return array


def shapes(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """(height, width): every small one, those of training, others."""
    small = [(height, width) for height in range(1, 5) for width in range(1, 5)]
    return [*small, (384, 384), (480, 480), *(tuple(map(int, rng.integers(1, 90, 2))) for _ in range(count))]


@pytest.mark.parametrize("number", range(10), ids=TORCHVISION)
def test_operations_are_torchvisions(number: int) -> None:
    expected, rng = list(TORCHVISION.values())[number], np.random.default_rng(number)
    for height, width in shapes(rng, 40):
        pixels = torch.from_numpy(picture(rng, height, width)).permute(2, 0, 1)
        before = pixels.clone()
        for sign in (-1.0, 1.0):
            for given in (pixels, pixels.contiguous()):
                assert torch.equal(_AUGMENTATIONS[number](given, sign), expected(pixels, sign))
        assert torch.equal(pixels, before)


def test_every_pair_of_pixel_and_neighbours_is_sharpened_as_torchvision_does() -> None:
    """Where the enhanced difference is a whole number, the last bit decides: each value on each flat ground."""
    own = np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(256, axis=1)
    patches = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None, None], (256, 256, 5, 5)).copy()
    patches[:, :, 2:3, 2:3] = own
    pixels = torch.from_numpy(patches.transpose(0, 2, 1, 3).reshape(1, 1280, 1280)).expand(3, -1, -1)
    assert torch.equal(_AUGMENTATIONS[4](pixels, 1.0), TORCHVISION["sharpness"](pixels, 1.0))


def test_augmentation_draws_and_chains_as_with_torchvision() -> None:
    reference = tuple(TORCHVISION.values())
    for number in range(60):
        rng, same = rng_for(3, 0, number), rng_for(3, 0, number)
        pixels = torch.from_numpy(picture(np.random.default_rng(number), 48, 64)).permute(2, 0, 1)
        expected = pixels
        for operation in same.choice(10, 2):
            applied, sign = same.random() < 0.5, -1.0 if same.random() < 0.5 else 1.0
            expected = reference[operation](expected, sign) if applied else expected
        assert torch.equal(rand_augment(pixels, rng), expected)
        assert rng.random() == same.random()


@pytest.mark.parametrize("backend", ["pillow", "torchvision"])
def test_a_window_is_cut_from_the_whole_resize(backend: str) -> None:
    rng = np.random.default_rng(5)
    for number in range(300):
        height, width = (int(length) for length in rng.integers(1, 160, 2))
        size = int(rng.integers(1, 100))
        shape = tuple(int(length) for length in rng.integers(size, 200, 2))
        if number % 10 == 0:
            shape = (max(width, size), shape[1])  # one side stays as it is
        image = Image.fromarray(picture(rng, height, width))
        left, top = (int(rng.integers(0, length - size + 1)) for length in shape)
        whole = resized(image, *shape, backend)[:, top : top + size, left : left + size]
        assert torch.equal(resized_window(image, shape, (left, top), size, backend), whole), number


@pytest.mark.parametrize("shape", [(640, 480), (480, 640), (1600, 1200), (333, 500), (200, 90)])
@pytest.mark.parametrize("short", [384, 401, 432, 480])
def test_windows_of_training_sizes(shape: tuple[int, int], short: int) -> None:
    image = Image.fromarray(picture(np.random.default_rng(short), shape[1], shape[0]))
    resize = (short, short * 4 // 3) if shape[0] < shape[1] else (short * 4 // 3, short)
    corner = (centre(resize[0], 384), centre(resize[1], 384))
    whole = functional.center_crop(resized(image, *resize, "pillow"), [384, 384])
    assert torch.equal(resized_window(image, resize, corner, 384, "pillow"), whole)


def test_centre_crops_are_torchvisions() -> None:
    rng = np.random.default_rng(7)
    for height in range(1, 12):
        for width in range(1, 12):
            pixels = pixels_of(Image.fromarray(picture(rng, height, width)))
            for size in range(1, 14):
                assert torch.equal(centre_crop(pixels, size), functional.center_crop(pixels, [size, size]))


@pytest.mark.parametrize("imagenet", [False, True])
def test_normalising_is_to_divide_and_subtract_in_float32(imagenet: bool) -> None:
    mean, std = normalisation(imagenet)
    pixels = torch.arange(256, dtype=torch.uint8).expand(5, 3, 256).permute(1, 2, 0)
    expected = functional.normalize(pixels.permute(2, 0, 1).float().div(255)[..., None], mean, std)
    got = normalised(pixels, mean, std)
    assert got.is_contiguous() and torch.equal(got, expected[..., 0].permute(1, 2, 0))


def test_every_16_bit_step_is_the_references() -> None:
    middles = (np.arange(-32767, 32768) / 32767.0).astype(np.float32)
    wave = np.concatenate([np.nextafter(middles, np.float32(to)) for to in (-9, 0, 9)] + [middles * 1.5])
    steps = (np.clip(wave, -1.0, 1.0).astype(np.float64) * 32767.0).astype(np.int16)
    expected = (steps / 32767.0).astype(np.float32)
    got = int16_round_trip(wave)
    assert got.dtype == np.float32 and np.array_equal(got.view(np.int32), expected.view(np.int32))
    assert len(np.unique(got)) == 65535


def test_photographs_and_evaluated_clips_need_no_torchvision() -> None:
    """Importing it takes as long as importing torch, in every data worker."""
    program = (
        "import sys, numpy as np\n"
        "from PIL import Image\n"
        "from unival.media import image_eval, image_train, video_eval\n"
        "rng, image = np.random.default_rng(0), Image.new('RGB', (50, 40))\n"
        "for _ in range(40): image_train(image, 32, rng=rng)\n"
        "image_eval(image, 32, resize=False), video_eval(np.zeros((2, 40, 50, 3), np.uint8), 32)\n"
        "print('torchvision' in sys.modules)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=120
    )
    assert done.stdout.strip() == "False", done.stdout + done.stderr
