"""Pretraining rows, their matching halves, and the negatives."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unival.batching.batch import Example, collate
from unival.core.seeding import rng_for
from unival.errors import ConfigError
from unival.media import MediaLoader
from unival.specs import NegativePool, PretrainSpec, SpecOptions
from unival.tables import open_table
from unival.vocabulary import Vocabulary
from unival.vocabulary.cleaning import clean_caption

VOCABULARY = Vocabulary.train(["a red circle", "what colour is it?", "yes no maybe"], 280, 16, 1000)
OPTIONS = SpecOptions(patch_image_size=32, patch_frame_size=16, num_frames=2)

# id, media, caption, question, refs, objects, dataset, type
REFERENCE_ROWS = [
    ["0", "0.png", "A Red-Circle on a desk", "", "", "circle&&desk", "coco", "caption"],
    ["1", "1.png", "", "How many circles/dots", "1.0|!+3&&0.4|!+4", "", "vqa", "qa"],
    ["2", "2.png", "the red circle", "", "8,6,40.5,30", "", "vg", "visual_grounding"],
    ["3", "0.png", "two words and more of it", "", "", "", "cc12m", "caption"],
    ["4", "1.png", "a blue square", "", "", "", "coco", "caption"],
    ["5", "1.png", "", "what colour", "red", "", "vqa", "qa"],
    ["6", "1.png", "", "what colour", "blue", "", "vqa", "qa"],
    ["7", "1.png", "", "how many dots", "5", "", "vqa", "qa"],
]


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(noise.integers(0, 255, (48, 64, 3)).astype(np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in REFERENCE_ROWS))
    return tmp_path


def prepared(folder: Path, options: SpecOptions = OPTIONS) -> tuple[PretrainSpec, Any]:
    spec = PretrainSpec()
    table = open_table(folder / "rows.tsv", spec.fields, spec.layout, header=False)
    spec.prepare(table, options)
    return spec, table


def texts(example: Example) -> tuple[str, str]:
    return VOCABULARY.decode(example.source.tolist()), VOCABULARY.decode(example.target.tolist())


def run(folder: Path, row: int, index: int | None, options: SpecOptions = OPTIONS) -> list[Example]:
    spec, table = prepared(folder, options)
    rng = None if index is None else rng_for(7, 1, index, "pretrain")
    return spec.examples(table[row], MediaLoader(str(folder)), options, VOCABULARY, rng, index is not None)


def test_evaluation_gives_the_generative_example(folder: Path) -> None:
    assert [texts(e) for e in run(folder, 0, None)] == [
        (" what does the image describe?", " a red circle on a desk")
    ]
    # no question mark is added in pretraining
    [qa] = run(folder, 1, None)
    assert texts(qa) == (" how many circles dots", " 3") and qa.weight == 1.0
    [grounding] = run(folder, 2, None)
    source, target = texts(grounding)
    assert source == ' which region does the text " the red circle " describe?'
    assert target.count("<bin_") == 4
    assert grounding.reference == (8, 6, 40.5, 30)


def test_matching_of_captions_is_balanced_and_true(folder: Path) -> None:
    labels: Counter[str] = Counter()
    spec, table = prepared(folder)
    media = MediaLoader(str(folder))
    for index in range(200):
        generative, matching = spec.examples(
            table[0], media, OPTIONS, VOCABULARY, rng_for(7, 1, index), training=True
        )
        source, label = texts(matching)
        shown = source.removeprefix(' does the image describe " ').removesuffix(' "?')
        labels[label] += 1
        assert (label == " yes") == (shown == "a red circle on a desk")
        assert matching.media is generative.media and matching.weight == 1.0
        assert generative.id == "0" and matching.id == "0/matching"
    assert 70 < labels[" yes"] < 130 and labels[" no"] + labels[" yes"] == 200


def test_verification_of_answers_is_true(folder: Path) -> None:
    spec, table = prepared(folder)
    media = MediaLoader(str(folder))
    shown: Counter[str] = Counter()
    for index in range(200):
        _, matching = spec.examples(table[1], media, OPTIONS, VOCABULARY, rng_for(7, 1, index), training=True)
        source, label = texts(matching)
        assert source.startswith(' what is the answer to question " how many circles dots ". is " ')
        answer = source.split('is " ')[1].removesuffix(' "?')
        assert (label == " yes") == (answer == "3")
        assert label == " yes" or answer != "4"  # 4 is an accepted answer too
        shown[answer] += 1
    assert set(shown) >= {"3", "2", "5"}


def test_grounding_rows_give_both_directions(folder: Path) -> None:
    for index in range(20):
        grounding, region = run(folder, 2, index)
        assert texts(region)[1] == " the red circle"
        source = region.source.tolist()
        assert VOCABULARY.decode(source).startswith("  what does the region describe? region: <bin_")
        assert source[-5:-1] == grounding.target.tolist()[:4]
        assert grounding.media is not None and tuple(grounding.media.shape) == (3, 32, 32)


def test_draws_follow_the_generator(folder: Path) -> None:
    def key(examples: list[Example]) -> list[Any]:
        return [(*texts(e), e.media.sum().item() if e.media is not None else 0) for e in examples]

    for row in range(3):
        assert key(run(folder, row, 11)) == key(run(folder, row, 11))
    assert len({str(key(run(folder, 0, index))) for index in range(8)}) > 4


def test_first_tokens_of_cc12m_are_not_scored(folder: Path) -> None:
    generative = run(folder, 3, 0)[0]
    assert generative.target[:2].eq(1).all() and generative.target[2:].ne(1).all()
    assert generative.prev_output.ne(1).all()
    assert run(folder, 0, 0)[0].target.ne(1).all()


def test_confidence_weighs_both_examples(folder: Path) -> None:
    rows = [["1", "1.png", "", "q", "0.6|!+3&&0.4|!+4", "", "vqa", "qa"], *REFERENCE_ROWS]
    (folder / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    assert [e.weight for e in run(folder, 0, 1)] == [0.6, 0.6]
    batch = collate(run(folder, 0, 1))
    assert batch["conf"].shape == (2, 1, 1)


def test_share_of_matching_examples(folder: Path) -> None:
    none = SpecOptions(patch_image_size=32, matching_prob=0.0)
    assert all(len(run(folder, 0, index, none)) == 1 for index in range(5))
    half = SpecOptions(patch_image_size=32, matching_prob=0.5)
    assert 5 < sum(len(run(folder, 0, index, half)) - 1 for index in range(40)) < 35


def test_named_fields(folder: Path) -> None:
    rows = [
        {"image": "0.png", "caption": "a red circle"},
        {"image": "1.png", "caption": ["a blue square", "a square"]},
        {"image": "1.png", "question": "what colour", "answer": "blue"},
        {"image": "0.png", "question": "what colour", "answer": "red"},
        {"image": "0.png", "text": "the circle", "box": [8, 6, 40, 30]},
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = PretrainSpec()
    table = open_table(path, spec.fields)
    spec.prepare(table, OPTIONS)
    media = MediaLoader(str(folder))
    starts = (
        " does the image",
        " does the image",
        " what is the answer",
        " what is the answer",
        "  what does the region",
    )
    for index, start in enumerate(starts):
        first, second = spec.examples(table[index], media, OPTIONS, VOCABULARY, rng_for(7, 1, index), True)
        assert texts(second)[0].startswith(start) and first.modality == "image"


def test_released_negative_files(folder: Path) -> None:
    negatives = folder / "negative_sample"
    negatives.mkdir()
    (negatives / "all_captions.txt").write_text("A first Caption\nthe second caption\nthe third one\n")
    (negatives / "object.txt").write_text("lamp\ntable\n")
    (negatives / "type2ans.json").write_text(json.dumps({"how many": ["1", "2"], "other": ["grass", "sky"]}))
    (folder / "video.txt").write_text("a moving picture\n")
    options = SpecOptions(
        patch_image_size=32, neg_sample_dir=str(negatives), neg_captions_video=str(folder / "video.txt")
    )
    spec, _ = prepared(folder, options)
    assert spec.pool is not None
    assert len(spec.pool.captions["image"]) == 3 and spec.pool.captions["video"][0] == "a moving picture"
    copy = pickle.loads(pickle.dumps(spec.pool))
    assert copy.captions["audio"][2] == "the third one"
    drawn = {
        spec.pool.caption(rng_for(0, 0, i), ["a cat on a desk"], "image", ["desk", "dog"]) for i in range(100)
    }
    assert drawn == {
        "a first caption", "the second caption", "the third one", "a cat on a lamp", "a cat on a table"
    }  # fmt: skip
    assert spec.pool.caption(rng_for(0, 0, 1), ["x"], "video") == "a moving picture"
    with pytest.raises(ConfigError, match=r"needs all_captions\.txt"):
        NegativePool.from_folder(folder / "absent")


def test_negative_answers_are_wrong_and_plausible() -> None:
    pool = NegativePool(
        {}, (), {"how many": ["0", "1", "2", "7"], "colour": ["red", "blue"], "other": ["sky"]}
    )
    for answers, answer, allowed in (
        ({"0": 1.0}, "0", {"1", "2", "7", "sky"}),
        ({"2": 1.0, "3": 0.3}, "2", {"0", "1", "7", "sky"}),
        ({"red": 1.0}, "red", {"blue", "sky"}),
        ({"red": 0.2}, "red", {"blue", "sky"}),
        ({"purple": 1.0}, "purple", {"sky"}),
        ({"purple": 1.0, "sky": 0.3}, "purple", {"0", "1", "2", "7", "red", "blue"}),
    ):
        drawn = {pool.answer(rng_for(1, 0, i), answers, answer) for i in range(200)}
        assert drawn == allowed
    sure = Counter(pool.answer(rng_for(1, 0, i), {"red": 1.0}, "red") for i in range(300))
    unsure = Counter(pool.answer(rng_for(1, 0, i), {"red": 0.2}, "red") for i in range(300))
    assert sure["blue"] > 240 and unsure["blue"] < 60
    with pytest.raises(ConfigError, match="no other answer"):
        NegativePool({}, (), {"x": ["red"]}).answer(rng_for(0, 0, 0), {"red": 1.0}, "red")


def test_negative_captions_need_another_caption() -> None:
    pool = NegativePool.from_texts({"image": ["A cat.", "a dog"]})
    assert {pool.caption(rng_for(0, 0, i), ["a dog"], "image") for i in range(20)} == {
        clean_caption("A cat.")
    }
    with pytest.raises(ConfigError, match="no other image caption"):
        NegativePool.from_texts({"image": ["a dog"]}).caption(rng_for(0, 0, 0), ["A dog"], "image")
    with pytest.raises(ConfigError, match="no other video caption"):
        pool.caption(rng_for(0, 0, 0), ["a dog"], "video")


def test_answers_without_a_list_of_types_are_grouped_by_question() -> None:
    pool = NegativePool.from_texts(
        {}, [("What colour is it", "red"), ("what colour was it", "blue"), ("is it", "yes")]
    )
    assert pool.answer_types == {"what colour": ("red", "blue"), "is it": ("yes",)}


def test_training_without_a_pool_says_so(folder: Path) -> None:
    spec = PretrainSpec()
    table = open_table(folder / "rows.tsv", spec.fields, spec.layout, header=False)
    with pytest.raises(ConfigError, match="matching examples need wrong captions and answers"):
        spec.examples(table[0], MediaLoader(str(folder)), OPTIONS, VOCABULARY, rng_for(0, 0, 0), True)


def write_sound(path: Path, seconds: float = 0.5) -> None:
    import soundfile

    soundfile.write(path, np.sin(np.arange(int(8000 * seconds)) / 9), 8000)


def test_sound_is_captioned_matched_and_asked_about(folder: Path) -> None:
    write_sound(folder / "0.wav")
    rows = [
        ["0", "0.wav", "A low tone", "", "", "", "sounds", "audio"],
        ["1", "0.wav", "a loud beep", "", "", "", "sounds", "audio_caption"],
        ["2", "0.wav", "", "how many beeps", "2", "", "sounds", "audio_qa"],
        ["3", "0.wav", "", "how many beeps", "3", "", "sounds", "audio_qa"],
    ]
    (folder / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    options = SpecOptions(sample_rate=8000, max_audio_len=4000)
    spec, table = prepared(folder, options)
    assert [spec.modality_of(table[index]) for index in range(4)] == ["audio"] * 4
    media = MediaLoader(str(folder))
    answers = set()
    for index in range(40):
        first, second = spec.examples(
            table[0], media, options, VOCABULARY, rng_for(7, 1, index), training=True
        )
        assert texts(first) == (" what does the audio describe?", " a low tone")
        assert first.modality == second.modality == "audio" and first.media is second.media
        answers.add(texts(second))
    assert answers == {
        (' does the audio describe " a low tone "?', " yes"),
        (' does the audio describe " a loud beep "?', " no"),
    }
    asked, judged = spec.examples(table[2], media, options, VOCABULARY, rng_for(7, 1, 0), training=True)
    assert texts(asked) == (" how many beeps", " 2")
    assert texts(judged)[0].startswith(' what is the answer to question " how many beeps ". is " ')


def test_negatives_of_each_modality_come_from_its_own_captions() -> None:
    pool = NegativePool.from_texts(
        {"image": ["a cat", "a dog"], "video": ["it runs", "it jumps"], "audio": ["bark", "miaow"]}
    )
    for modality, true, other in (
        ("image", "a cat", "a dog"),
        ("video", "it runs", "it jumps"),
        ("audio", "bark", "miaow"),
    ):
        assert {pool.caption(rng_for(0, 0, i), [true], modality) for i in range(20)} == {other}


def test_cc12m_is_known_by_the_name_of_the_data_set(folder: Path) -> None:
    for dataset, unscored in (("cc12m", 2), ("CC12M", 2), ("cc3m", 0), ("", 0)):
        rows = [["3", "0.png", "two words and more of it", "", "", "", dataset, "caption"], *REFERENCE_ROWS]
        (folder / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
        generative, matching = run(folder, 0, 0)
        assert int(generative.target.eq(1).sum()) == unscored
        assert matching.target.ne(1).all()
