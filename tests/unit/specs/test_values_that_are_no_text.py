"""Values of JSON lines that are no text: refused with file, line and column, or read as what they mean."""

from __future__ import annotations

import json
import math

import pytest
from PIL import Image

from unival.errors import DataError
from unival.media import MediaLoader
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table
from unival.vocabulary import Vocabulary

OPTIONS = SpecOptions(patch_image_size=16)
NAN = math.nan
GOOD = {
    "caption": {"image": "a.png", "caption": "a red square"},
    "vqa": {"image": "a.png", "question": "which colour?", "answer": "red"},
    "grounding": {"image": "a.png", "text": "the square", "box": [2, 2, 9, 9]},
    "entailment": {"image": "a.png", "hypothesis": "a square", "label": "entailment"},
    "matching": {"image": "a.png", "text": "a square", "label": "yes"},
}


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(["a red square"], 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("values")
    Image.new("RGB", (16, 16), "red").save(path / "a.png")
    return path


def read(folder, task, row):
    (folder / "t.jsonl").write_text(json.dumps(row) + "\n")
    return open_table(str(folder / "t.jsonl"))[0]


@pytest.mark.parametrize("task", GOOD)
@pytest.mark.parametrize("value", [NAN, math.inf, True, {"en": "a"}, [NAN], [{"raw": "a"}], [["a"]], []])
def test_what_is_no_text_is_refused_with_its_place(task, value, folder, vocabulary):
    """NaN was learnt as "nan", true as "True", an object as its Python text."""
    spec = get_spec(task)
    for column in [name for name in GOOD[task] if name not in ("image", "box")]:
        if column in ("answer", "label") and value is True:  # yes
            continue
        row = read(folder, task, {**GOOD[task], column: value})
        with pytest.raises(DataError) as error:
            spec.examples(row, MediaLoader(folder), OPTIONS, vocabulary, None, True)
        assert f"t.jsonl, line 1, column '{column}'" in str(error.value), (column, value)


@pytest.mark.parametrize("value", [3, ["a.png"], {"path": "a.png"}, True, NAN, None, ""])
def test_what_is_no_medium_is_shown(value, folder, vocabulary):
    row = read(folder, "caption", {**GOOD["caption"], "image": value})
    said = "the field is empty" if value in (None, "") or value is NAN else "got "
    with pytest.raises(DataError, match=said):
        get_spec("caption").examples(row, MediaLoader(folder), OPTIONS, vocabulary)


@pytest.mark.parametrize("value", ["0.1,0.2,0.6,0.9", [0.1, 0.2, 0.6, 0.9], [0, 0, 0.5, 1]])
def test_a_table_of_shares_is_no_table_of_pixels(value, folder, vocabulary):
    row = read(folder, "grounding", {**GOOD["grounding"], "box": value})
    spec = get_spec("grounding")
    with pytest.raises(DataError, match=r"column 'box'.*shares of the image's sides.*width.*height"):
        spec.check([row, row])
    pixels = read(folder, "grounding", GOOD["grounding"])
    spec.check([row, pixels])  # a single box of less than a pixel is legal (reference behaviour)
    assert spec.examples(row, MediaLoader(folder), OPTIONS, vocabulary, None, True)


def test_a_whole_pixel_is_a_box(folder, vocabulary):
    row = read(folder, "grounding", {**GOOD["grounding"], "box": [0, 0, 1, 1]})
    assert get_spec("grounding").reference(row, OPTIONS) == (0, 0, 1, 1)


ANSWERS = {
    "official": (
        [{"answer": "red", "answer_confidence": "yes", "answer_id": n} for n in range(3)],
        {"red": 1},
    ),
    "official, two": ([{"answer": "red"}, {"answer": "red"}, {"answer": "blue"}], {"red": 1, "blue": 0.5}),
    "one official": ({"answer": "red", "answer_id": 1}, {"red": 1}),
    "yes and no": ([True, True, False], {"yes": 1, "no": 0.5}),
    "switch": (True, {"yes": 1}),
    "numbers": ([2, 2.0, "two"], {"2": 1, "two": 0.5}),
    "confidences": ({"red": 1, "pink": 0.3}, {"red": 1, "pink": 0.3}),
    "with a gap": (["red", None], {"red": 1}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_as_people_store_them(name, folder, vocabulary):
    """Official answer objects were learnt as their Python text."""
    value, expected = ANSWERS[name]
    for column in ("answer", "answers"):
        row = read(folder, "vqa", {"image": "a.png", "question": "what?", column: value})
        assert get_spec("vqa").reference(row, OPTIONS) == expected
        [example] = get_spec("vqa").examples(row, MediaLoader(folder), OPTIONS, vocabulary, None, True)
        assert vocabulary.decode(example.target[:-1].tolist()).strip() in expected


def test_names_of_objects_in_a_list(folder, vocabulary):
    spec, options = get_spec("vqa"), SpecOptions(patch_image_size=16, add_object=True)
    sources = []
    for objects in ("square&&dot", ["square", "dot", None]):
        row = read(folder, "vqa", {**GOOD["vqa"], "objects": objects})
        sources.append(spec.examples(row, MediaLoader(folder), options, vocabulary)[0].source.tolist())
    assert sources[0] == sources[1]


def test_an_absent_medium_beside_one_that_is_there(folder, vocabulary):
    """Tables of several modalities hold NaN where a row has no picture."""
    row = read(folder, "pretrain", {"image": NAN, "video": "v.mp4", "caption": "a red square"})
    assert get_spec("pretrain").modality_of(row) == "video"


def test_a_key_that_stands_twice_is_refused(folder):
    """Of two captions under one key the last one was learnt without a word."""
    lines = '{"image": "a.png", "caption": "a"}\n{"image": "a.png", "caption": "a", "caption": "b"}\n'
    (folder / "twice.jsonl").write_text(lines)
    with pytest.raises(DataError, match=r"twice\.jsonl, line 2: .*the key 'caption' stands twice"):
        open_table(str(folder / "twice.jsonl"))[1]
