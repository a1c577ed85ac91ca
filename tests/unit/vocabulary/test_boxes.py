"""Boxes to bins and back, and boxes that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unival.errors import ConfigError, DataError
from unival.vocabulary.boxes import dequantise, drawable, inside, parse_box, quantise, scale


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
    st.integers(16, 4000), st.integers(16, 4000),
    st.sampled_from([64, 224, 384, 512]), st.sampled_from([100, 1000]),
)  # fmt: skip
def test_quantisation_error(
    a: float, b: float, c: float, d: float, width: int, height: int, size: int, num_bins: int
) -> None:
    box = np.array([a * width, b * height, c * width, d * height])
    resize = (size / width, size / height)
    bins = quantise(scale(tuple(box), resize), 512, num_bins)
    back = dequantise(bins, resize, 512, num_bins)
    half_bin = 0.5 / (num_bins - 1) * 512
    limit = half_bin / np.array([*resize, *resize])
    # float32 rounding adds at most a few units in the last place of the coordinate
    assert (np.abs(back - box) <= limit + 4e-7 * max(width, height)).all()


def test_bins_span_max_image_size() -> None:
    assert quantise([0, 0, 512, 512]) == [0, 0, 999, 999]
    assert quantise([0, 0, 384, 384]) == [0, 0, 749, 749]
    with pytest.raises(ConfigError, match="max_image_size must be at least patch_image_size"):
        quantise([0, 0, 640, 10])


def test_many_boxes_at_once() -> None:
    assert dequantise(np.zeros((3, 4)), (2.0, 1.0)).shape == (3, 4)


@pytest.mark.parametrize("value", ["1,2,3.5,4", " 1, 2, 3.5, 4", [1, 2, 3.5, 4], ("1", "2", "3.5", "4")])
def test_forms_of_a_box(value: object) -> None:
    assert parse_box(value) == (1.0, 2.0, 3.5, 4.0)


@pytest.mark.parametrize(
    "value", ["", "1,2,3", "1,2,3,4,5", "1,2,x,4", "1,2,nan,4", "1,2,inf,4", None, 5, [1, 2, 3]]
)
def test_no_box(value: object) -> None:
    with pytest.raises(DataError, match="four numbers"):
        parse_box(value)


def test_empty_and_reversed_boxes() -> None:
    for value in ("5,5,5,9", "9,5,5,9"):
        with pytest.raises(DataError, match="x0 < x1"):
            parse_box(value)


def test_boxes_outside_the_image() -> None:
    assert inside((0, 0, 64, 48), (64, 48)) == (0, 0, 64, 48)
    assert inside((-0.5, 0, 64.9, 48), (64, 48)) == (0, 0, 64, 48)
    for box in ((0.0, 0.0, 66.0, 48.0), (-2.0, 0.0, 5.0, 5.0), (0.0, 0.0, 5.0, 100.0)):
        with pytest.raises(DataError, match="outside its image of 64 x 48"):
            inside(box, (64, 48))


@pytest.mark.parametrize(
    ("box", "drawn"),
    [
        ((2, 3, 8, 9), (2, 3, 8, 9)),
        ((8, 9, 2, 3), (2, 3, 8, 9)),
        ((-5, 4, 90, 4), (0, 4, 19, 4)),
        ((50, 50, 60, 60), (19, 9, 19, 9)),
    ],
)
def test_any_predicted_box_can_be_drawn(box: tuple[float, ...], drawn: tuple[float, ...]) -> None:
    assert drawable(box, (20, 10)) == drawn
