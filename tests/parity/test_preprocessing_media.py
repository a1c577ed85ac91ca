"""Frames, images, clips and waveforms equal the reference's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import rules
from unival.core.seeding import rng_for
from unival.media import audio_eval, frame_indices, grounding_eval, image_eval, normalisation, video_eval
from unival.media.transforms_audio import int16_round_trip

HERE = Path(__file__).parent
DATA: dict[str, Any] = json.loads((HERE / "data" / "preprocessing_media.json").read_text())


def picture(name: str, height: int, width: int) -> np.ndarray:
    fine = rules.ints(name + "/fine", height * width * 3, 0, 256).reshape(height, width, 3)
    rows, columns = -(-height // 16), -(-width // 16)
    coarse = rules.ints(name + "/coarse", rows * columns * 3, 0, 256).reshape(rows, columns, 3)
    coarse = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return ((3 * coarse + fine) // 4).astype(np.uint8)


def sampled(name: str) -> torch.Tensor:
    entry = DATA["samples"][name]
    return torch.tensor(entry["values"]).reshape(entry["shape"])


def check_moments(tensor: torch.Tensor, expected: dict[str, Any]) -> None:
    values = tensor.double()
    assert list(values.shape) == expected["shape"]
    # Measured with Pillow 13.0.0: sums equal, standard deviation to 3e-13.
    scale = expected["abs_sum"]
    assert abs(values.sum().item() - expected["sum"]) < 1e-6 * scale
    assert abs(values.abs().sum().item() - scale) < 1e-6 * scale
    assert abs(values.std(unbiased=False).item() - expected["std"]) < 1e-5 * expected["std"]


@pytest.mark.parametrize("case", DATA["image_transform"], ids=lambda c: c["name"])
def test_images(case: dict[str, Any]) -> None:
    array = picture(case["name"], case["H"], case["W"])
    assert int(array.sum()) == case["uint8_sum"]
    image = Image.fromarray(array)
    for name, expected in case["outputs"].items():
        size = int(name.split("_")[1])
        mean, std = normalisation(name.endswith("imagenet_norm"))
        if name.startswith("refcoco"):
            box = (1.0, 2.0, 31.0, 42.0)
            got, moved, ratio = grounding_eval(image, box, size, 512, mean, std)
            assert ratio == (size / case["W"], size / case["H"])
            assert moved == tuple(b * r for b, r in zip(box, ratio * 2, strict=True))
        else:
            got = image_eval(image, size, mean, std)
        check_moments(got, expected)
        if (key := f"{case['name']}/{name}") in DATA["samples"]:
            # Measured with Pillow 13.0.0: 0 (equal).
            torch.testing.assert_close(got[:, ::47, ::53], sampled(key), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", DATA["video_transform"], ids=lambda c: c["name"])
def test_videos(case: dict[str, Any]) -> None:
    size = case["patch_frame_size"]
    frames = [picture(f"{case['name']}/{i}", case["H"], case["W"]) for i in range(case["T"])]
    got = video_eval(np.stack(frames), size)
    check_moments(got, case["output"])
    torch.testing.assert_close(got[:, :, ::31, ::37], sampled(f"{case['name']}/{size}"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", DATA["audio"], ids=lambda c: c["name"])
def test_audio(case: dict[str, Any]) -> None:
    wave = rules.audio(case["name"], 1, case["n"])[0].numpy()
    rounded = torch.from_numpy(int16_round_trip(wave))
    check_moments(rounded, case["after_int16_round_trip"])
    key = f"{case['name']}/int16_round_trip"
    torch.testing.assert_close(rounded[::997], sampled(key), rtol=0, atol=1e-7)
    full = audio_eval(wave, 480_000)
    check_moments(full, case["after_repeatpad_480000"])
    torch.testing.assert_close(full[::9973], sampled(f"{case['name']}/repeatpad"), rtol=0, atol=1e-7)
    assert int(full.nonzero().max()) == case["last_nonzero_index"]


@pytest.mark.parametrize("case", DATA["frame_indices"]["middle"], ids=str)
def test_middle_frames(case: dict[str, Any]) -> None:
    assert frame_indices(case["num_frames"], case["vlen"]) == case["indices"]


@pytest.mark.parametrize("case", DATA["frame_indices"]["rand_intervals"], ids=lambda c: str(c["indices"][:4]))
def test_random_frames_stay_in_the_reference_intervals(case: dict[str, Any]) -> None:
    count, length = case["num_frames"], case["vlen"]
    ranges = case["choice_ranges_start_inclusive_stop_exclusive"]
    draws = [frame_indices(count, length, "rand", rng_for(7, 0, i)) for i in range(300)]
    assert draws[0] == frame_indices(count, length, "rand", rng_for(7, 0, 0))
    if all(stop > start for start, stop in ranges):
        seen = [set(column) for column in zip(*draws, strict=True)]
        for values, (start, stop) in zip(seen, ranges, strict=True):
            assert values <= set(range(start, stop))
            # 300 draws from at most 31 values leave out the first or the last of them with odds 1e-4.
            assert {start, stop - 1} <= values
    else:
        kept = min(count, length)
        for draw in draws:
            assert len(draw) == count
            assert draw[:kept] == sorted(set(draw[:kept])) and draw[kept - 1] < length
            assert set(draw[kept:]) <= {draw[kept - 1]}


@pytest.mark.parametrize("case", DATA["frame_indices"]["fps"], ids=lambda c: c["sample"])
def test_frames_by_rate(case: dict[str, Any]) -> None:
    got = frame_indices(case["max_num_frames"], case["vlen"], case["sample"], fps=case["input_fps"])
    assert got == case["indices"]
