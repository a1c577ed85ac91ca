"""Training transforms: seeded, of the right size at any size, boxes following their objects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from unival.core.seeding import rng_for
from unival.errors import ConfigError
from unival.media import (
    audio_eval,
    audio_train,
    grounding_eval,
    grounding_train,
    image_eval,
    image_train,
    normalisation,
    video_eval,
    video_train,
)
from unival.media.augmentation import _AUGMENTATIONS, rand_augment
from unival.media.transforms_image import scale_range


def noise(height: int, width: int, frames: int | None = None, seed: int = 0) -> np.ndarray:
    shape = (height, width, 3) if frames is None else (frames, height, width, 3)
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, shape, dtype=np.uint8)


def pictures() -> Image.Image:
    return Image.fromarray(noise(90, 120))


BOX = (40, 20, 60, 50)
TRAINING: dict[str, Callable[[np.random.Generator], Tensor]] = {
    "image": lambda rng: image_train(pictures(), 64, rng=rng),
    "grounding": lambda rng: (
        grounding_train(pictures(), (40, 20, 60, 50), 64, rng=rng, region_crop=True).image
    ),
    "video": lambda rng: video_train(noise(70, 80, 3), 64, rng=rng),
    "video pretraining": lambda rng: video_train(noise(70, 80, 3), 64, rng=rng, order="pretrain"),
    "audio": lambda rng: audio_train(noise(50, 50).ravel() / 255.0, 400, rng),
}


@pytest.mark.parametrize("name", TRAINING)
def test_training_is_a_function_of_the_generator(name: str) -> None:
    transform = TRAINING[name]
    before = torch.get_rng_state()
    np.random.seed(1)
    first = [transform(rng_for(7, 1, i)) for i in range(6)]
    torch.rand(1)
    torch.set_rng_state(before)
    again = [transform(rng_for(7, 1, i)) for i in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(first[0], other) for other in first[1:])
    # The global state, of which dropout draws, is as before.
    assert torch.equal(before, torch.get_rng_state())
    assert all(f.dtype == torch.float32 and f.isfinite().all() for f in first)


@pytest.mark.parametrize("name", TRAINING)
def test_randomness_without_a_generator_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="generator"):
        TRAINING[name](None)  # type: ignore[arg-type]


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([32, 64, 96]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_shape_gives_the_size(height: int, width: int, size: int, seed: int) -> None:
    image = Image.fromarray(noise(height, width))
    rng = rng_for(seed, 0, 0)
    box = (0.0, 0.0, width / 2, height)
    for got in (
        image_eval(image, size),
        image_eval(image, size, resize=False),
        image_train(image, size, rng=rng),
        grounding_eval(image, box, size).image,
        grounding_train(image, box, size, rng=rng, region_crop=True).image,
    ):
        assert got.shape == (3, size, size) and got.abs().max() <= 1
    frames = noise(height, width, 2)
    for clip in (
        *(video_eval(frames, size, frame_resize=how) for how in ("none", "short_side", "square")),
        video_train(frames, size, rng=rng),
        video_train(frames, size, rng=rng, order="pretrain", flip=False),
    ):
        assert clip.shape == (3, 2, size, size) and clip.is_contiguous() and clip.abs().max() <= 1


def test_scales_are_the_references_at_its_sizes() -> None:
    assert scale_range(384) == (480, 672) and scale_range(480) == (480, 672)
    assert scale_range(64) == (80, 112) and scale_range(512) == (640, 896)
    assert scale_range(64, 64) == (64, 90)
    with pytest.raises(ConfigError, match=r"top_scale 60 is below"):
        scale_range(64, 60)


def test_centre_crop_keeps_pixels() -> None:
    array = noise(90, 120)
    got = image_eval(Image.fromarray(array), 64, resize=False)
    expected = torch.from_numpy(array[13:77, 28:92]).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
    assert torch.equal(got, expected)
    small = image_eval(Image.fromarray(array), 200, resize=False)
    assert (small[:, :50] == -1).all() and (small[:, 60:140, 50:150] > -1).any()


def test_training_without_augmentation_is_evaluation() -> None:
    image, frames, box = pictures(), noise(70, 80, 3), (1, 2, 30, 40)
    assert torch.equal(image_train(image, 64, augment=False), image_eval(image, 64))
    assert torch.equal(image_train(image, 64, resize=False), image_eval(image, 64, resize=False))
    assert torch.equal(video_train(frames, 64, augment=False), video_eval(frames, 64))
    assert torch.equal(grounding_train(image, box, 64).image, grounding_eval(image, box, 64).image)
    mean, std = normalisation(True)
    plain = image_eval(image, 64) * 0.5 + 0.5
    shifted = (plain - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(image_eval(image, 64, mean, std), shifted, rtol=1e-5, atol=1e-5)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_boxes_follow_their_objects(data: st.DataObject) -> None:
    """A bright rectangle is found at the box that the transform returns."""
    width, height = data.draw(st.integers(60, 200)), data.draw(st.integers(60, 200))
    x0, y0 = data.draw(st.integers(0, width - 30)), data.draw(st.integers(0, height - 30))
    x1, y1 = (
        data.draw(st.integers(x0 + 15, min(width, x0 + 40))),
        data.draw(st.integers(y0 + 15, min(height, y0 + 40))),
    )
    array = np.zeros((height, width, 3), np.uint8)
    array[y0:y1, x0:x1] = 255
    image, size = Image.fromarray(array), 96
    rng = rng_for(data.draw(st.integers(0, 1000)), 0, 0)
    for got in (
        grounding_eval(image, (x0, y0, x1, y1), size),
        grounding_train(image, (x0, y0, x1, y1), size, rng=rng, region_crop=True),
    ):
        assert got.box is not None
        bx0, by0, bx1, by1 = got.box
        assert 0 <= bx0 < bx1 <= size and 0 <= by0 < by1 <= size
        rows, columns = np.nonzero(got.image[0].numpy() > 0)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(found, got.box)).max() <= 1
    w_ratio, h_ratio = grounding_eval(image, None, size).resize
    assert (w_ratio * width, h_ratio * height) == pytest.approx((size, size))


def test_bins_must_span_the_image() -> None:
    with pytest.raises(ConfigError, match=r"image size 600 is above max_image_size 512"):
        grounding_eval(pictures(), (0, 0, 1, 1), 600)


def test_rand_augment_leaves_a_quarter_alone_and_reaches_every_operation() -> None:
    pixels = torch.from_numpy(noise(48, 48)).permute(2, 0, 1) // 2 + 40
    single = [torch.equal(operation(pixels, 1.0), pixels) for operation in _AUGMENTATIONS]
    assert single == [True] + [False] * 9
    results = [rand_augment(pixels, rng_for(0, 0, i)) for i in range(400)]
    unchanged = sum(torch.equal(r, pixels) for r in results) / 400
    # (1 - 0.5 * 9/10) squared = 0.30; four standard deviations are 0.09.
    assert abs(unchanged - 0.3025) < 0.1
    shifted = _AUGMENTATIONS[7](pixels, 1.0)
    assert torch.equal(shifted[..., 7:], pixels[..., :-7]) and (shifted[..., :7] == 128).all()
    for operation in _AUGMENTATIONS[5:]:
        assert not torch.equal(operation(pixels, 1.0), operation(pixels, -1.0))


@pytest.mark.parametrize("order", ["finetune", "pretrain"])
def test_all_frames_get_the_same_parameters(order: str) -> None:
    frames = np.repeat(noise(70, 80, 1), 4, axis=0)
    for i in range(8):
        clip = video_train(frames, 64, rng=rng_for(0, 0, i), order=order)
        assert all(torch.equal(clip[:, 0], clip[:, k]) for k in range(1, 4))


def test_flipping_can_be_switched_off() -> None:
    frames, mirrored = noise(64, 64, 1), set()
    for i in range(20):
        plain = video_train(frames, 64, rng=rng_for(3, 0, i), flip=False)
        maybe = video_train(frames, 64, rng=rng_for(3, 0, i))
        mirrored.add(torch.equal(maybe, plain.flip(-1)))
        assert torch.equal(maybe, plain) or torch.equal(maybe, plain.flip(-1))
    assert mirrored == {True, False}


def test_frame_resize() -> None:
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    frames[:, :, 32:] = 255
    none = video_eval(frames, 64)
    assert (none[:, :, :16] == -1).all() and (none[:, :, 16:48, 32:] == 1).all()
    for how in ("short_side", "square"):
        clip = video_eval(frames, 64, frame_resize=how)
        assert (clip[..., :26] < -0.9).all() and (clip[..., 38:] > 0.9).all()
    with pytest.raises(
        ConfigError, match=r"frame_resize 'shortside' is not one of .*Did you mean 'short_side'"
    ):
        video_eval(frames, 64, frame_resize="shortside")


def test_audio_lengths() -> None:
    ramp = (np.arange(1, 11, dtype=np.float32) + 0.5) / 32767
    steps = lambda t: (t * 32767).round().int().tolist()  # noqa: E731
    assert steps(audio_eval(ramp, 25)) == [*range(1, 11), *range(1, 11), 0, 0, 0, 0, 0]
    assert steps(audio_eval(ramp, 25, filling="repeat")) == [*range(1, 11), *range(1, 11), 1, 2, 3, 4, 5]
    assert steps(audio_eval(ramp, 14, filling="pad")) == [*range(1, 11), 0, 0, 0, 0]
    assert steps(audio_eval(ramp, 4)) == [4, 5, 6, 7]
    assert steps(audio_eval(ramp, 4, crop="start")) == [1, 2, 3, 4]
    windows = {tuple(steps(audio_train(ramp, 4, rng_for(0, 0, i)))) for i in range(100)}
    assert windows == {(i, i + 1, i + 2, i + 3) for i in range(1, 8)}
    assert steps(audio_train(ramp, 10, rng_for(0, 0, 0))) == list(range(1, 11))
    loud = audio_eval(np.array([2.0, -3.0], np.float32), 2)
    assert loud.tolist() == [1.0, -1.0]
    for wrong in ({"filling": "repeatpat"}, {"crop": "center"}, {"max_audio_len": 0}):
        with pytest.raises(ConfigError):
            audio_eval(ramp, **wrong)  # type: ignore[arg-type]


def test_importing_the_package_loads_no_heavy_library() -> None:
    program = (
        "import sys, unival.media\n"
        "heavy = ['av', 'soundfile', 'soxr', 'librosa', 'torch', 'torchvision', 'PIL']\n"
        "print([m for m in heavy if m in sys.modules], len(unival.media.__all__), unival.media.MediaError)\n"
        "try: unival.media.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=60
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("[] "), done.stdout + done.stderr
    assert lines[1] == "module 'unival.media' has no attribute 'nothing'"
