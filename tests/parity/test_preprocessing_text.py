"""Token ids, clean-up, boxes and whole items equal the reference's, through tables, media and task specs.

The data file holds the few hundred GPT-2 merges that its strings need, so these tests need no other file;
those with the complete released files are marked ``shared``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unival.batching.batch import Example, collate
from unival.losses import AllowedTokens
from unival.media import MediaLoader
from unival.specs import SpecOptions, TaskSpec, get_spec
from unival.tables import open_table
from unival.vocabulary import Vocabulary
from unival.vocabulary.boxes import dequantise
from unival.vocabulary.bpe import byte_of_character
from unival.vocabulary.cleaning import clean_caption, clean_question
from unival.vocabulary.prompts import prompt

HERE = Path(__file__).parent
DATA: dict[str, Any] = json.loads((HERE / "data" / "preprocessing_text.json").read_text())
RELEASED = HERE.parents[2] / "shared" / "bpe"


def subset_vocabulary() -> Vocabulary:
    """The released dictionary with only those pieces filled in that the strings need."""
    subset = DATA["vocabulary_subset"]
    pieces = sorted(byte_of_character()) + [merge.replace(" ", "") for merge in subset["merges"]]
    words = [f"filler{n}" for n in range(4, 50264)]
    for index, token in enumerate(subset["token_ids"]):
        words[token - 4] = str(index)
    files = {
        "encoder.json": json.dumps({piece: index for index, piece in enumerate(pieces)}).encode(),
        "vocab.bpe": "\n".join(["#version: 0.2", *subset["merges"], ""]).encode(),
        "dict.txt": "\n".join(words).encode(),
    }
    return Vocabulary(files, 8192, 1000)


@pytest.fixture(
    scope="module", params=["subset", pytest.param("released", marks=pytest.mark.shared)], name="vocabulary"
)
def _vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    if request.param == "subset":
        return subset_vocabulary()
    if not RELEASED.is_dir():
        pytest.skip("needs the released vocabulary files in ../shared/bpe")
    return Vocabulary.released(RELEASED)


def rows_of(spec: TaskSpec, folder: Path, lines: list[list[str]]) -> Any:
    table = folder / "rows.tsv"
    table.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return open_table(table, spec.fields, spec.layout, header=False)


def picture(width: int = 64, height: int = 48) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def check_tokens(example: Example, item: dict[str, Any]) -> None:
    assert example.source.tolist() == item["source"]
    assert example.target.tolist() == item["target"]
    assert example.prev_output.tolist() == item["prev_output_tokens"]


def test_dictionary(vocabulary: Vocabulary) -> None:
    expected = DATA["dictionary"]
    assert len(vocabulary) == expected["total_size"]
    assert (vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk) == (0, 1, 2, 3)
    assert vocabulary.mask == expected["id_of"]["<mask>"]
    assert vocabulary.code_offset == expected["id_of"]["<code_0>"]
    assert vocabulary.bin_offset == expected["id_of"]["<bin_0>"]
    assert [vocabulary.symbol(i) for i in range(len(vocabulary) - 3, len(vocabulary))] == expected["last_3"]


@pytest.mark.shared
def test_every_symbol_of_the_released_dictionary() -> None:
    if not RELEASED.is_dir():
        pytest.skip("needs the released vocabulary files in ../shared/bpe")
    vocabulary = Vocabulary.released(RELEASED)
    symbols = [vocabulary.symbol(i) for i in range(len(vocabulary))]
    assert symbols[:30] == DATA["dictionary"]["first_30"]
    for name, index in DATA["dictionary"]["id_of"].items():
        assert symbols[index] == name
    digest = hashlib.sha256("\n".join(symbols).encode()).hexdigest()
    assert digest == DATA["dictionary"]["sha256_of_newline_joined_symbols"]
    # decoding tolerates every id, and ids that are not there
    assert vocabulary.decode(range(-3, len(vocabulary) + 3)).endswith("<bin_998> <bin_999>")


@pytest.mark.parametrize("case", DATA["encode_text"], ids=lambda case: repr(case["text"]))
def test_encode_text(vocabulary: Vocabulary, case: dict[str, Any]) -> None:
    ids = vocabulary.encode(case["text"])
    assert ids == case["ids"]
    assert [0, *ids[:5], 2] == case["ids_len5_bos_eos"]


@pytest.mark.parametrize("case", DATA["decode"], ids=lambda case: repr(case["text"]))
def test_decode(vocabulary: Vocabulary, case: dict[str, Any]) -> None:
    assert vocabulary.decode(case["ids"]) == case["text"]
    assert vocabulary.decode([0, *case["ids"], 2, 1, 1]) == case["text"]


def test_encode_bins(vocabulary: Vocabulary) -> None:
    numbers = re.findall(r"<bin_(\d+)>", DATA["encode_bins"]["text"])
    assert len(numbers) == len(DATA["encode_bins"]["text"].split())
    assert [vocabulary.bin_id(int(number)) for number in numbers] == DATA["encode_bins"]["ids"]


@pytest.mark.parametrize("name, clean", [("pre_question", clean_question), ("pre_caption", clean_caption)])
def test_clean_up(name: str, clean: Any) -> None:
    for case in DATA[name]:
        assert clean(case["in"], 128) == case["out"]
        assert clean(case["in"], 3) == case["out_max3"]


@pytest.mark.parametrize(
    "item", DATA["refcoco_items"], ids=lambda item: f"{item['box']}-{item['patch_image_size']}"
)
def test_grounding(vocabulary: Vocabulary, item: dict[str, Any], tmp_path: Path) -> None:
    spec = get_spec("grounding")
    phrase = vocabulary.decode(item["source"]).split('"')[1].strip()
    rows = rows_of(spec, tmp_path, [["7", "9", phrase, item["box"], picture(item["W"], item["H"])]])
    options = SpecOptions(patch_image_size=item["patch_image_size"], max_image_size=item["max_image_size"])
    [example] = spec.examples(rows[0], MediaLoader(), options, vocabulary, training=True)
    check_tokens(example, item)
    assert example.id == "7"
    assert example.media is not None and list(example.media.shape) == item["patch_image_shape"]
    assert example.resize is not None
    assert np.float32(example.resize[0]) == np.float32(item["w_resize_ratio"])
    assert np.float32(example.resize[1]) == np.float32(item["h_resize_ratio"])
    bins = vocabulary.decode_box(item["target"][:4])
    assert bins.tolist() == item["bins"]
    expected = np.float32(item["box_decoded_from_bins"])
    # measured: equal to the last bit
    np.testing.assert_array_equal(dequantise(bins, example.resize), expected)
    np.testing.assert_array_equal(
        np.float32(spec.decode(item["target"], example, vocabulary, options)), expected
    )


@pytest.mark.parametrize("item", DATA["caption_items"], ids=lambda item: f"{item['split']}-{item['caption']}")
def test_caption(vocabulary: Vocabulary, item: dict[str, Any], tmp_path: Path) -> None:
    spec = get_spec("caption")
    rows = rows_of(spec, tmp_path, [["7", "9", item["caption"], "", picture()]])
    options = SpecOptions(patch_image_size=32, max_tgt_length=item["max_tgt_length"])
    [example] = spec.examples(rows[0], MediaLoader(), options, vocabulary, training=item["split"] == "train")
    check_tokens(example, item)


def check_prompted(
    spec: TaskSpec, row: Any, options: SpecOptions, vocabulary: Vocabulary, item: dict[str, Any]
) -> None:
    [example] = spec.examples(row, MediaLoader(), options, vocabulary, training=True)
    check_tokens(example, item)
    assert [0, *example.prefix.tolist()] == item["decoder_prompt"]
    assert example.allowed == item["constraint_mask_allowed_ids"]
    batch = collate([example])
    length = batch["target"].size(1)
    masks = AllowedTokens(batch["allowed"], length, len(vocabulary)).dense(torch.arange(length))
    assert [m.nonzero().flatten().tolist() for m in masks] == item["constraint_mask_allowed_ids"]


@pytest.mark.parametrize(
    "item", DATA["vqa_items"], ids=lambda item: f"{item['prompt_type']}-{item['add_object']}"
)
def test_vqa(vocabulary: Vocabulary, item: dict[str, Any], tmp_path: Path) -> None:
    spec = get_spec("vqa")
    rows = rows_of(spec, tmp_path, [["7", "9", item["question"], item["ref"], item["objects"], picture()]])
    options = SpecOptions(
        patch_image_size=32,
        prompt_type=item["prompt_type"],
        add_object=item["add_object"],
        answers=tuple(DATA["trie"]["answers"]),
    )
    check_prompted(spec, rows[0], options, vocabulary, item)
    assert [spec.examples(rows[0], MediaLoader(), options, vocabulary)[0].weight] == item["conf"]


@pytest.mark.parametrize(
    "item", DATA["snli_items"], ids=lambda item: f"{item['label']}-{item['add_caption']}"
)
def test_entailment(vocabulary: Vocabulary, item: dict[str, Any], tmp_path: Path) -> None:
    spec = get_spec("entailment")
    line = ["7", "9", picture(), item["hypothesis"], item["caption"], item["label"]]
    rows = rows_of(spec, tmp_path, [line])
    options = SpecOptions(
        patch_image_size=32, prompt_type=item["prompt_type"], add_caption=item["add_caption"]
    )
    check_prompted(spec, rows[0], options, vocabulary, item)


def test_trie(vocabulary: Vocabulary) -> None:
    expected = DATA["trie"]
    options = SpecOptions(answers=tuple(expected["answers"]))
    trie = get_spec("vqa").constraint(options, vocabulary)
    assert [vocabulary.encode(f" {answer}") for answer in expected["answers"]] == expected["answer_tokens"]
    for layer in expected["next_layer"]:
        if layer["prefix"][0] == 0:  # the reference keeps bos in its keys
            assert trie.allowed(layer["prefix"][1:]) == layer["allowed_sorted"]


def test_image_codes(vocabulary: Vocabulary) -> None:
    item = DATA["image_gen_item"]
    source = vocabulary.encode(prompt("image_gen", {}, text=" ".join(item["caption"].split())))
    assert [0, *source, 2] == item["source"]
    assert [*map(vocabulary.code_id, item["codes"]), 2] == item["target"]
