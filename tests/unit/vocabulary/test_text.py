"""Clean-up, joined fields, answers, prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unival.errors import ConfigError
from unival.vocabulary.cleaning import (
    clean_caption,
    clean_question,
    parse_answers,
    split_joined,
    strip_punctuation,
    with_question_mark,
)
from unival.vocabulary.prompts import check_overrides, prompt


def test_captions_and_questions() -> None:
    assert clean_caption("A <person> on a T-shirt") == "a person on a t shirt"
    assert clean_question("A <person>  here") == "a <person> here"
    assert strip_punctuation('A man, "riding"  a surf-board!', 4) == "A man riding a"
    assert with_question_mark("is it red") == "is it red?" == with_question_mark("is it red?")


@given(st.text(), st.integers(1, 5))
def test_cut_to_words(text: str, limit: int) -> None:
    assert len(clean_caption(text, limit).split(" ")) <= limit
    assert len(strip_punctuation(text, limit).split()) <= limit


def test_joined_fields() -> None:
    assert split_joined(" a && b&&&&c ") == ["a", "b", "c"]
    assert parse_answers("0.6|!+hot dog&&1.0|!+red&&0.3|!+blue") == {"hot dog": 0.6, "red": 1.0, "blue": 0.3}
    assert parse_answers("red") == {"red": 1.0}
    assert parse_answers("red&&blue") == {"red": 1.0, "blue": 1.0}
    for bad in ("2.0|!+red", "x|!+red", "0|!+red", "nan|!+red"):
        with pytest.raises(ValueError):
            parse_answers(bad)


def test_prompts_are_replaced_by_name() -> None:
    assert prompt("caption.audio", {}) == " what does the audio describe?"
    released = {"caption.audio": " what does the video describe?"}
    assert prompt("caption.audio", released) == " what does the video describe?"
    check_overrides(released)
    assert prompt("matching.image", {}, text="{a} {0}") == ' does the image describe " {a} {0} "?'


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"captoin.image": "x"}, "Did you mean 'caption.image'"),
        ({"matching.image": "no place for the text"}, "must contain {text}"),
        ({"matching.image": "{text} {other}"}, "must contain {text}"),
        ({"matching.image": "{text"}, "is not a template"),
        ({"matching.image": "{text.__class__}"}, "must contain {text}"),
        ({"caption.image": "{text}"}, "no placeholder"),
    ],
)
def test_bad_prompts(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_overrides(overrides)
