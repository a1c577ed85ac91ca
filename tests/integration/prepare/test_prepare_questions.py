"""VQA v2 with Visual Genome's questions, OK-VQA, VizWiz, GQA, SNLI-VE."""

from __future__ import annotations

import pytest

from unival.datatools.corpora.answers import confidences
from unival.specs import SpecOptions, get_spec
from unival.specs.answers import read_answer_list
from unival.tables import open_table


def questions(*entries: tuple[int, int, str]) -> dict:
    return {"questions": [{"question_id": q, "image_id": i, "question": text} for q, i, text in entries]}


def annotations(**humans: list[str]) -> dict:
    return {
        "annotations": [
            {
                "question_id": int(name.removeprefix("q")),
                "multiple_choice_answer": answers[0],
                "answers": [{"answer_id": n, "answer": a} for n, a in enumerate(answers, 1)],
            }
            for name, answers in humans.items()
        ]
    }


WITHOUT_VG = ("--vg-questions", "none")
YES = ["yes"] * 10
RED = ["Red."] * 2 + ["pink"] + ["dark red"] * 7


@pytest.fixture
def vqa(place):
    place.write(
        "v2_OpenEnded_mscoco_train2014_questions.json",
        questions((1000, 1, "Is it\tday?"), (1001, 1, "Colour?"), (1002, 2, "Rare?"), (1003, 51, "Leak?")),
    )
    place.write(
        "v2_mscoco_train2014_annotations.json",
        annotations(q1000=YES, q1001=RED, q1002=["zebu"] * 10, q1003=YES),
    )
    val = [(50_000 + n, 50 + n // 2, f"Is {n} so?") for n in range(6)]
    place.write("v2_OpenEnded_mscoco_val2014_questions.json", questions(*val))
    place.write(
        "v2_mscoco_val2014_annotations.json",
        annotations(**{f"q{q}": YES if q % 2 else RED for q, _, _ in val}),
    )
    place.write("v2_OpenEnded_mscoco_test2015_questions.json", questions((90_000, 90, "What is it?")))
    return place


def test_vqa_trains_on_train_and_val_without_the_reserved_images(vqa):
    code, text = vqa.run("vqa", *WITHOUT_VG, "--reserved-images", "2", "--min-answer-count", "2")
    assert code == 0, text
    train = vqa.rows("vqa_data/vqa_train_1.tsv", "vqa")
    val = vqa.rows("vqa_data/vqa_val.tsv", "vqa")
    assert len(val) == 4 and not {r["image"] for r in train} & {r["image"] for r in val}
    assert sum(r["image"].startswith("val2014/") for r in train) == 2
    assert not (vqa.out / "vqa_data/vqa_fullval.tsv").exists()
    row = next(r for r in train if r["id"] == "1001")
    assert row["answer"] == "1.0|!+dark red", "of its answers, one is in the closed list"
    assert row["image"] == "train2014/COCO_train2014_000000000001.jpg"
    dropped = vqa.dropped("vqa")
    assert dropped["no answer of the closed list, vqa_data/vqa_train"] == 1
    assert read_answer_list(vqa.out / "vqa_data/trainval_ans2label.pkl") == ("yes", "dark red")
    assert read_answer_list(vqa.out / "vqa_data/trainval_ans2label.json") == ("yes", "dark red")
    test = open_table(str(vqa.out / "vqa_data/vqa_test.tsv"), layout="vqa", header=False)
    assert get_spec("vqa").reference(test[0], SpecOptions()) is None
    vqa.images(*{r["image"] for r in train})
    answers = str(vqa.out / "vqa_data/trainval_ans2label.pkl")
    assert answers and len(vqa.examples("vqa_data/vqa_train_3.tsv", "vqa", "image")) == len(train)


def test_vqa_train_only_gives_the_whole_validation_set(vqa):
    arguments = (
        *WITHOUT_VG,
        "--rows-per",
        "question",
        "--reserved-images",
        "2",
        "--min-answer-count",
        "2",
        "--train-on",
        "train",
        "--answer-weights",
        "equal",
    )
    assert vqa.run("vqa", *arguments)[0] == 0
    train = vqa.rows("vqa_data/vqa_train_1.tsv", "vqa")
    full = vqa.rows("vqa_data/vqa_fullval.tsv", "vqa")
    assert {r["id"] for r in train} == {"1000", "1001"}, "the question on a picture of val is left out"
    assert len(full) == 6 and not {r["image"] for r in train} & {r["image"] for r in full}
    assert vqa.dropped("vqa")["medium is also in an evaluation split"] == 1
    answers = next(r for r in train if r["id"] == "1001")["answer"]
    assert answers == "0.3|!+dark red", "trap T35: equal, one decimal"


def test_visual_genome_questions_join_and_coco_images_are_known(vqa):
    qas = [
        {"id": 7, "qas": [{"qa_id": 1, "question": "Is it so?", "answer": "Yes."}]},
        {"id": 8, "qas": [{"qa_id": 2, "question": "On a picture of val?", "answer": "Yes."}]},
    ]
    vqa.write("question_answers.json", qas)
    url = "https://x/VG_100K_2/7.jpg"
    data = [{"image_id": 7, "coco_id": None, "url": url, "width": 60, "height": 40}]
    vqa.write("image_data.json", [*data, {"image_id": 8, "coco_id": 51, "url": url, "width": 6, "height": 4}])
    assert vqa.run("vqa", "--reserved-images", "3", "--min-answer-count", "1")[0] == 0
    (row,) = [r for r in vqa.rows("vqa_data/vqa_train_1.tsv", "vqa") if r["id"].startswith("vg")]
    assert (row["id"], row["image"], row["answer"]) == ("vg1", "VG_100K_2/7.jpg", "1.0|!+yes")
    part = vqa.rows("pretrain_ours/parts/vqa_qa.tsv", "pretrain")
    assert {r["type"] for r in part} == {"qa"} and "vqa_vg1" not in {r["id"] for r in part}
    (row,) = vqa.rows("pretrain_ours/parts/vqa_vg_qa.tsv", "pretrain")
    assert (row["id"], row["dataset"], row["refs"]) == ("vqa_vg_vg1", "vqa_vg", "1.0|!+yes")


def test_confidences():
    assert confidences(["a dog", "Dog", "two", "2", "2", "the"]) == pytest.approx({"2": 5 / 6, "dog": 5 / 9})
    of_ten = [confidences(["red"] * n + ["pink"] * (10 - n))["red"] for n in range(1, 6)]
    assert of_ten == pytest.approx([0.3, 0.6, 0.9, 1.0, 1.0], abs=1e-12), "official VQA accuracy"
    assert confidences(["A Dog."]) == {"dog": 1.0}, "one person was asked"
    assert list(confidences([str(n) for n in range(10, 20)], "equal").values()) == [0.1] * 10
    assert confidences(["x y"] * 10, "equal") == {"x y": 1.0}


def test_okvqa(place):
    for part, image in (("train", 5), ("val", 6)):
        place.write(f"OpenEnded_mscoco_{part}2014_questions.json", questions((image, image, "Why ñ?")))
        place.write(f"mscoco_{part}2014_annotations.json", annotations(**{f"q{image}": ["pony tail"] * 5}))
    assert place.run("okvqa")[0] == 0
    (row,) = place.rows("vqa_data/okvqa_acc_val.tsv", "vqa")
    assert row["question"] == "Why ñ?" and row["image"] == "val2014/COCO_val2014_000000000006.jpg"
    assert row["answer"] == "1.0|!+pony tail"
    assert read_answer_list(place.out / "vqa_data/okvqa_trainval_ans2label.json") == ("pony tail",)
    assert len(place.rows("vqa_data/okvqa_train.tsv", "vqa")) == 1


def test_vizwiz(place):
    def entry(part, n, answers):
        content = {"image": f"VizWiz_{part}_{n:08d}.jpg", "question": "What\nis it?"}
        if answers is not None:
            content["answers"] = [{"answer": a, "answer_confidence": "yes"} for a in answers]
        return content

    place.write("train.json", [entry("train", 0, ["can"] * 10), entry("train", 0, ["can"] * 10)])
    place.write(
        "val.json", [entry("val", 0, ["unanswerable"] * 6 + ["cat"] * 4), entry("val", 1, ["the", "a"])]
    )
    place.write("test.json", [entry("test", 0, None)])
    assert place.run("vizwiz")[0] == 0
    (row,) = place.rows("vqa_data/vizwiz_acc_val.tsv", "vqa")
    assert row["question"] == "What is it?" and row["answer"] == "1.0|!+unanswerable&&1.0|!+cat"
    assert place.dropped("vizwiz") == {
        "id twice, vqa_data/vizwiz_train": 1,
        "no answer, vqa_data/vizwiz_acc_val": 1,
    }
    (test,) = place.rows("vqa_data/vizwiz_test.tsv", "vqa")
    assert test["answer"] == "" and test["id"] == "VizWiz_test_00000000.jpg", "the id of VizWiz's own files"


def test_gqa_from_a_folder_of_files(place):
    for n in range(2):
        content = {
            f"0{n}": {"question": f"Is {n} red?", "answer": "no", "imageId": f"n{n}", "isBalanced": False}
        }
        place.write(f"train_all_questions/train_all_questions_{n}.json", content)
    place.write(
        "val_balanced_questions.json", {"9": {"question": "Where?", "answer": "left", "imageId": "n1"}}
    )
    folder = str(place.official / "train_all_questions")
    assert place.run("gqa", "--train", folder, "--media-name", "gqa/{file}")[0] == 0
    rows = place.rows("pretrain_ours/parts/gqa_qa.tsv", "pretrain")
    assert [(r["id"], r["media"], r["refs"]) for r in rows] == [("gqa00", "gqa/n0.jpg", "1.0|!+no")]
    assert place.dropped("gqa") == {"medium is also in an evaluation split": 1}
    assert len(place.rows("vqa_data/gqa_val.tsv", "vqa")) == 1


def test_snli_ve(place):
    def pair(n, image, label, hypothesis="Ein Mann\tläuft."):
        return {
            "pairID": f"{image}.jpg#0r{n}",
            "captionID": f"{image}.jpg#0",
            "gold_label": label,
            "sentence1": "A man walks.",
            "sentence2": hypothesis,
            "Flickr30K_ID": image,
        }

    place.write(
        "snli_ve_train.jsonl", [pair(1, "11", "neutral"), pair(2, "11", "-"), pair(3, "22", "entailment")]
    )
    place.write("snli_ve_dev.jsonl", [pair(1, "33", "contradiction")])
    place.write("snli_ve_test.jsonl", [pair(9, "22", "neutral")])
    assert place.run("snli_ve", "--media-name", "flickr30k/{file}")[0] == 0
    (row,) = place.rows("snli_ve_data/snli_ve_train.tsv", "entailment")
    assert row == {
        "id": "11.jpg#0r1",
        "image": "flickr30k/11.jpg",
        "hypothesis": "Ein Mann läuft.",
        "caption": "A man walks.",
        "label": "neutral",
    }
    assert place.dropped("snli_ve") == {
        "no majority label, snli_ve_data/snli_ve_train": 1,
        "medium is also in an evaluation split": 1,
    }
    place.images("flickr30k/33.jpg")
    (example,) = place.examples("snli_ve_data/snli_ve_dev.tsv", "entailment", "image", training=False)
    assert example.reference == "no"
