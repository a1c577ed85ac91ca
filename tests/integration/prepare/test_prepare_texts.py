"""Texts of prepared tables as the published ones have them, and what wrong captions are drawn from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from unival.datatools.corpora.texts import letters_and_digits
from unival.metrics import caption_scores
from unival.metrics.io import read_references
from unival.specs import NegativePool, SpecOptions, get_spec
from unival.tables import open_table
from unival.vocabulary.cleaning import strip_punctuation


def test_letters_and_digits():
    assert letters_and_digits("A man, riding a surf-board.") == "A man riding a surfboard"
    assert letters_and_digits("What's  it? 1.5\u00a0m <PERSON> été") == "Whats it 15 m PERSON été"
    assert letters_and_digits("...") == ""


def karpathy(*captions: str) -> dict[str, Any]:
    splits = ("train", "val", "test")
    return {
        "images": [
            {
                "filepath": "train2014",
                "filename": f"COCO_train2014_{n:012d}.jpg",
                "cocoid": n,
                "split": splits[min(n, 2)],
                "sentences": [{"raw": text, "sentid": n}],
            }
            for n, text in enumerate(captions)
        ]
    }


def test_coco_captions_are_lower_case_and_pretraining_rows_have_no_punctuation(place):
    place.write("dataset_coco.json", karpathy("A Man, on a surf-board.", "The Bus.", "A T-shirt."))
    place.write(
        "instances_train2014.json",
        {"categories": [{"id": 1, "name": "surf-board"}], "annotations": [{"image_id": 0, "category_id": 1}]},
    )
    assert place.run("coco", "--shuffles", "1")[0] == 0
    (train,) = place.rows("caption_data/caption_stage1_train_1.tsv", "caption")
    assert train["caption"] == "a man, on a surf-board."
    assert place.rows("caption_data/caption_val.tsv", "caption")[0]["caption"] == "the bus."
    (part,) = place.rows("pretrain_ours/parts/coco_caption.tsv", "pretrain")
    assert part["caption"] == "A Man on a surfboard"
    assert part["objects"] == "", "no object is swapped in the paper: the file in the folder is not read"
    references = read_references(place.out / "caption_data/test_caption_coco_format.json", "caption").values
    assert references == {2: ["A T-shirt."]}, "the official scorers get the official text"
    assert read_references(place.out / "caption_data/val_caption_coco_format.json", "caption").values == {
        1: ["The Bus."]
    }
    named = "--instances-train", str(place.official / "instances_train2014.json")
    assert place.run("coco", "--shuffles", "1", *named)[0] == 0
    assert place.rows("pretrain_ours/parts/coco_caption.tsv", "pretrain")[0]["objects"] == "surfboard"
    assert place.run("coco", "--shuffles", "1", "--text", "original")[0] == 0
    (train,) = place.rows("caption_data/caption_stage1_train_1.tsv", "caption")
    (part,) = place.rows("pretrain_ours/parts/coco_caption.tsv", "pretrain")
    assert train["caption"] == part["caption"] == "A Man, on a surf-board."


def test_questions_of_pretraining_have_no_punctuation(place):
    content = {"0": {"question": "What's on the t-shirt?", "answer": "t-shirt", "imageId": "n1"}}
    place.write("train_balanced_questions.json", content)
    assert place.run("gqa")[0] == 0
    (row,) = place.rows("pretrain_ours/parts/gqa_qa.tsv", "pretrain")
    assert (row["question"], row["refs"]) == ("Whats on the tshirt", "1.0|!+tshirt")


def test_refcoco_is_finetuned_on_raw_sentences_and_pretrained_on_cleaned_ones(place):
    images = [{"id": 1, "file_name": "COCO_train2014_000000000001.jpg"}]
    place.write(
        "instances.json", {"images": images, "annotations": [{"id": 5, "bbox": [1.0, 2.0, 30.0, 40.0]}]}
    )
    raw, sent = "A woman in a white blouse holding a glass of wine.", "woman in white blouse, holding wine"
    sentences = [{"sent_id": 0, "sent": sent, "raw": raw}]
    place.write(
        "refs(unc).p", [{"ref_id": 1, "ann_id": 5, "image_id": 1, "split": "train", "sentences": sentences}]
    )
    assert place.run("refcoco", "--shuffles", "1")[0] == 0
    assert place.rows("refcoco_data/refcoco_train_1.tsv", "grounding")[0]["text"] == raw
    (part,) = place.rows("pretrain_ours/parts/refcoco_ground.tsv", "pretrain")
    assert part["caption"] == "woman in white blouse holding wine"


def test_visual_genome_gives_the_largest_regions_as_captions(place):
    regions = [
        {"region_id": n, "x": 0, "y": 0, "width": 200 + n, "height": 200, "phrase": f"region {n}"}
        for n in range(12)
    ]
    place.write("region_descriptions.json", [{"id": 1, "regions": regions}])
    for options, expected in (((), range(11, 4, -1)), (("--captions-per-image", "0"), range(11, -1, -1))):
        assert place.run("visual_genome", *options)[0] == 0
        rows = place.rows("pretrain_ours/parts/vg_caption.tsv", "pretrain")
        assert [r["caption"] for r in rows] == [f"region {n}" for n in expected]
        assert [r["id"] for r in rows] == [f"vg{n}" for n in expected]
    code, text = place.run("visual_genome", "--captions-per-image", "-1")
    assert code == 2 and "--captions-per-image is -1" in text


def test_video_questions_have_no_punctuation(place):
    entry = {"id": 0, "video_id": 7, "question": "what is a man's t-shirt?", "answer": "t-shirt"}
    place.write("train_qa.json", [entry])
    assert place.run("msrvtt_qa", "--shuffles", "1")[0] == 0
    (row,) = place.rows("video_data/vqa_data/msrvtt_qa_4k_train_1.tsv", "video_vqa")
    assert (row["question"], row["answer"]) == ("what is a mans tshirt", "1.0|!+tshirt")


def audiocaps(place: Any) -> None:
    header = "audiocap_id,youtube_id,start_time,caption\n"
    place.write("train.csv", header + '1,abc,30,"A man\'s voice, and a dog."\n')
    rows = [
        (10 * clip + n, f"clip{clip}", f"A man's voice {n}, and a dog.") for clip in (1, 2) for n in range(5)
    ]
    place.write("test.csv", header + "".join(f'{key},{clip},0,"{text}"\n' for key, clip, text in rows))


def test_captions_of_sounds_score_alike_in_table_and_references(place):
    audiocaps(place)
    assert place.run("audiocaps", "--shuffles", "1")[0] == 0
    folder = place.out / "audio_data/caption_data"
    (train,) = place.rows("audio_data/caption_data/audiocaps_train_1.tsv", "audio_caption")
    assert train["caption"] == "A mans voice and a dog"
    spec = get_spec("caption", "audio")
    table = open_table(str(folder / "audiocaps_test.tsv"), spec.fields, spec.layout)
    assert spec.reference(table[0], SpecOptions())[0] == "A mans voice 0 and a dog"
    candidate = strip_punctuation("a man's voice 0, and a dog")  # as the model learns to write
    scores = caption_scores(
        {"x": candidate}, {"x": spec.reference(table[0], SpecOptions())}, metrics=("bleu",)
    )
    assert scores.corpus["Bleu_4"] > 0.999, "mans, not man 's"
    references = read_references(folder / "audiocaps_test_coco_format.json", "caption").values
    assert set(references) == {10, 20} == {int(row["id"]) for row in table}
    assert references[10][0] == "A man's voice 0, and a dog."


def test_references_of_videos_have_the_ids_of_the_rows(place):
    place.write("train.json", {"v_a": {"timestamps": [[0, 1]], "sentences": ["One."]},
                               "v_b": {"timestamps": [[0, 1]], "sentences": ["Two."]}})  # fmt: skip
    place.write("val_2.json", {"v_c": {"timestamps": [[0, 1], [1, 2]], "sentences": ["It's red.", "Blue."]}})
    assert place.run("activitynet", "--hold-out", "1", "--shuffles", "1")[0] == 0
    name = "video_data/caption_data/activitynet_caption_val2"
    references = read_references(place.out / f"{name}_coco_format.json", "caption").values
    rows = {row["id"]: row["caption"] for row in place.rows(f"{name}.tsv", "video_caption")}
    assert rows == {"v_c_0": "Its red", "v_c_1": "Blue"}
    assert references == {"v_c_0": ["It's red."], "v_c_1": ["Blue."]}


def test_wrong_captions_of_videos_are_captions_of_videos(tmp_path):
    for name, lines in (("all_captions", "a picture\n"), ("all_captions_video", "a clip\n"), ("object", "")):
        (tmp_path / f"{name}.txt").write_text(lines)
    (tmp_path / "type2ans.json").write_text("{}")
    rng = np.random.default_rng(0)
    pool = NegativePool.from_folder(tmp_path)
    assert pool.caption(rng, ["x"], "video") == "a clip"
    assert pool.caption(rng, ["x"], "audio") == pool.caption(rng, ["x"], "image") == "a picture"
    released = NegativePool.from_folder(tmp_path, captions_video=str(tmp_path / "all_captions.txt"))
    assert released.caption(rng, ["x"], "video") == "a picture"


def test_an_answer_of_several_types_has_the_last_and_other_is_none():
    types = {"how many": ["1", "2"], "what number": ["2", "3", "4"], "other": ["4", "grass"]}
    pool = NegativePool({"image": ["x"]}, (), types)
    assert pool._type_of == {"1": "how many", "2": "what number", "3": "what number", "4": "what number"}
    drawn = {pool.answer(np.random.default_rng(n), {"2": 1.0}, "2") for n in range(60)}
    assert "1" not in drawn and {"3", "4"} <= drawn
    assert json.dumps(pool.answer_types)  # plain data
