"""Rows and options that cannot be used: one typed error naming file, line, column and what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unival.errors import ConfigError, DataError
from unival.media import MediaError, MediaLoader
from unival.specs import SpecOptions, get_spec
from unival.specs.base import located
from unival.tables import open_table
from unival.vocabulary import Vocabulary

VOCABULARY = Vocabulary.train(["a red circle"], 260, 16, 1000)


def prepare(folder: Path, task: str, row: dict[str, Any], options: SpecOptions | None = None) -> list[Any]:
    path = folder / "rows.jsonl"
    path.write_text('{"image": "a.png"}\n' + json.dumps(row) + "\n")
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    read = open_table(path)[1]
    options = options or SpecOptions(patch_image_size=32)
    return get_spec(task).examples(read, MediaLoader(str(folder)), options, VOCABULARY, None, True)


@pytest.mark.parametrize(
    "task, row, column, message",
    [
        ("caption", {"image": "a.png", "caption": ""}, "caption", "at least one word"),
        ("caption", {"image": "a.png", "caption": " && "}, "caption", "at least one word"),
        ("caption", {"image": "a.png", "caption": "..."}, "caption", "at least one word"),
        ("caption", {"image": "a.png", "caption": []}, "caption", "at least one word"),
        ("caption", {"image": "a.png"}, "caption", "no such column"),
        ("caption", {"image": "", "caption": "x"}, "image", "media reference"),
        ("caption", {"caption": "x"}, "image", "no such column"),
        ("vqa", {"image": "a.png", "question": " ", "answer": "x"}, "question", "the field is empty"),
        ("vqa", {"image": "a.png", "question": ["a"], "answer": "x"}, "question", "expected text"),
        ("vqa", {"image": "a.png", "question": "q"}, "answer", "expected an answer"),
        ("vqa", {"image": "a.png", "question": "q", "answer": "9|!+x"}, "answer", "expected answers such as"),
        ("vqa", {"image": "a.png", "question": "q", "answer": "&&"}, "answer", "at least one answer"),
        (
            "vqa",
            {"image": "a.png", "question": "q", "answers": {"x": "y"}},
            "answers",
            "expected answers such as",
        ),
        ("grounding", {"image": "a.png", "text": "x", "box": "1,2,3"}, "box", "four numbers"),
        ("grounding", {"image": "a.png", "text": "x", "box": "9,2,3,4"}, "box", "x0 < x1"),
        (
            "grounding",
            {"image": "a.png", "text": "x", "box": "0,0,70,40"},
            "box",
            "outside its image of 64 x 48",
        ),
        ("grounding", {"image": "a.png", "text": "x", "box": ""}, "box", "four numbers"),
        ("grounding", {"image": "a.png", "text": "", "box": "0,0,9,9"}, "text", "the field is empty"),
        ("grounded_caption", {"image": "a.png", "text": "x"}, "box", "four numbers"),
        ("matching", {"image": "a.png", "text": "x", "label": "perhaps"}, "label", "expected one of match"),
        ("matching", {"image": "a.png", "text": "x"}, "label", "label is missing"),
        (
            "entailment",
            {"image": "a.png", "hypothesis": "x", "label": "true"},
            "label",
            "expected one of entailment",
        ),
        ("verification", {"image": "a.png", "question": "q", "label": "yes"}, "answer", "no such column"),
        ("pretrain", {"image": "a.png", "caption": "x", "type": "audio?video"}, "audio", "no such column"),
        ("pretrain", {"image": "a.png", "caption": "x", "type": "poem"}, "type", "expected caption, qa"),
        ("pretrain", {"image": "a.png", "caption": "..", "type": "caption"}, "caption", "at least one word"),
        (
            "pretrain",
            {"media": "a.png", "caption": "x", "refs": "1,2", "type": "visual_grounding"},
            "refs",
            "four",
        ),
    ],
)
def test_bad_rows(tmp_path: Path, task: str, row: dict[str, Any], column: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, task, row)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'rows.jsonl'}, line 2, column '{column}': "), text
    assert message in text


def test_answer_outside_the_closed_list(tmp_path: Path) -> None:
    options = SpecOptions(patch_image_size=32, answers=("red", "blue"))
    with pytest.raises(
        DataError, match=r"line 2, column 'answer': none of the answers \['pink'\].*closed list of 2"
    ):
        prepare(tmp_path, "vqa", {"image": "a.png", "question": "q", "answer": "pink"}, options)


def test_broken_media(tmp_path: Path) -> None:
    for reference in ("absent.png", "no base64 at all!"):
        with pytest.raises(MediaError):
            prepare(tmp_path, "caption", {"image": reference, "caption": "x"})


def test_image_code_is_located(tmp_path: Path) -> None:
    path = tmp_path / "codes.tsv"
    path.write_text("id\tcodes\tcaption\n1\t3 8192\tx\n")
    row = open_table(path, layout="image_gen", header=True)[0]
    released_counts = Vocabulary.train(["x"], 256)
    place = r"codes\.tsv, line 2, column 'codes': "
    with (
        pytest.raises(DataError, match=place + r"image code 8192 is outside 0\.\.8191"),
        located(row, "codes"),
    ):
        [released_counts.code_id(int(code)) for code in row["codes"].split()]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_scr_length": 3}, "Did you mean 'max_src_length'"),
        ({"prompt_type": "prev"}, "prompt_type 'prev' is not one of none, src, prev_output"),
        ({"patch_image_size": 0}, "patch_image_size must be at least 1"),
        ({"acc_thresh": 0.0}, "acc_thresh"),
        ({"matching_prob": 2.0}, "matching_prob"),
        ({"answers": ["a"], "ans2label_file": "b"}, "only one of"),
        ({"prompts": {"capton.image": "x"}}, "Did you mean 'caption.image'"),
        ({"patch_image_size": 640, "max_image_size": 512}, "max_image_size"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built = SpecOptions.from_options(**options)
        prepare(tmp_path, "grounding", {"image": "a.png", "text": "x", "box": "0,0,9,9"}, built)


def test_absent_answer_file(tmp_path: Path) -> None:
    options = SpecOptions(ans2label_file=str(tmp_path / "absent.pkl"))
    with pytest.raises(ConfigError, match=r"absent\.pkl cannot be read"):
        get_spec("vqa").candidates(options)
