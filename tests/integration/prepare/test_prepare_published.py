"""Prepared tables against the published ones: questions and what their scores say."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from unival.core.seeding import rng_for
from unival.evaluate.items import gather
from unival.evaluate.scoring import score_predictions
from unival.metrics import io
from unival.metrics.vqa import vqa_accuracy
from unival.specs import SpecOptions, get_spec
from unival.specs.answers import read_answer_list
from unival.tables import open_table

WORDS = ["red", "Red.", "blue", "dark red", "t-shirt", "two", "2", "a dog", "dog", "yes"]


def vqa_pair(place: Any, questions: str, annotations: str, rows: list[tuple[int, int, list[str]]]) -> None:
    """Question and annotation files in the official form: (question id, image id, answers)."""
    asked = [{"image_id": image, "question_id": key, "question": f"What is {key}?"} for key, image, _ in rows]
    place.write(questions, {"info": {}, "task_type": "Open-Ended", "questions": asked})
    answered = [
        {
            "question_id": key,
            "image_id": image,
            "question_type": "what is",
            "answer_type": "other",
            "multiple_choice_answer": humans[0],
            "answers": [
                {"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(humans, 1)
            ],
        }
        for key, image, humans in rows
    ]
    place.write(annotations, {"annotations": answered})


def drawn(count: int, purpose: str) -> list[list[str]]:
    """Ten answers for each of ``count`` questions, from one to all people agreeing."""
    rng = rng_for(7, 0, 0, purpose)
    return [[WORDS[k] for k in rng.integers(0, 1 + n % len(WORDS), 10)] for n in range(count)]


@pytest.fixture
def vqa(place: Any) -> Any:
    humans = drawn(60, "vqa")
    train = [(n, n, humans[n]) for n in range(20)]
    train[0] = (0, 0, ["red"] * 5 + ["blue"] * 3 + ["dark red"] * 2)
    val = [(1000 + n, 500 + n, humans[n]) for n in range(20, 60)]
    names = "v2_OpenEnded_mscoco_{}2014_questions.json", "v2_mscoco_{}2014_annotations.json"
    for part, rows in (("train", train), ("val", val)):
        vqa_pair(place, *(name.format(part) for name in names), rows)
    place.write("question_answers.json", [
        {"id": 7, "qas": [{"qa_id": 1, "question": "What?", "answer": "Red."},
                          {"qa_id": 2, "question": "What, then?", "answer": "A zebu."}]}
    ])  # fmt: skip
    place.write("image_data.json", [{"image_id": 7, "coco_id": None, "url": "https://x/VG_100K_2/7.jpg"}])
    return place


def test_each_listed_answer_is_a_training_row(vqa):
    roots = "--media-root", str(vqa.root / "coco"), "--vg-media-root", str(vqa.root / "genome")
    assert (
        vqa.run("vqa", "--reserved-images", "30", "--min-answer-count", "1", "--shuffles", "1", *roots)[0]
        == 0
    )
    listed = set(read_answer_list(vqa.out / "vqa_data/trainval_ans2label.pkl"))
    train = vqa.rows("vqa_data/vqa_train_1.tsv", "vqa")
    first = {r["id"]: r["answer"] for r in train if re.fullmatch(r"0(_\d+)?", r["id"])}
    assert first == {"0": "1.0|!+red", "0_1": "0.9|!+blue", "0_2": "0.6|!+dark red"}
    assert {r["answer"].partition("|!+")[2] for r in train} == listed
    assert "zebu" not in listed, "Visual Genome's answers do not count for the list"
    (genome,) = [r for r in train if r["id"].startswith("vg")]
    assert (genome["answer"], genome["image"]) == ("1.0|!+red", "genome/VG_100K_2/7.jpg")
    assert all(r["image"].startswith(("coco/train2014/", "coco/val2014/")) for r in train if r is not genome)
    confidences = {r["answer"].partition("|!+")[0] for r in train}
    assert confidences <= {"0.3", "0.6", "0.9", "1.0"} and len(confidences) == 4


def test_visual_genome_belongs_to_the_published_questions(vqa):
    (vqa.official / "question_answers.json").unlink()
    code, text = vqa.run("vqa", "--reserved-images", "30")
    assert code == 2 and "--vg-questions none" in text and "question_answers.json" in text
    assert (
        vqa.run("vqa", "--vg-questions", "none", "--reserved-images", "30", "--min-answer-count", "1")[0] == 0
    )
    assert any("question_answers.json" in note for note in vqa.report("vqa")["notes"])


def test_pretraining_sees_train2014_alone(vqa):
    assert vqa.run("vqa", "--reserved-images", "5", "--min-answer-count", "1")[0] == 0
    assert any("val2014" in r["image"] for r in vqa.rows("vqa_data/vqa_train_1.tsv", "vqa"))
    part = vqa.rows("pretrain_ours/parts/vqa_qa.tsv", "pretrain")
    assert len(part) == 20 and all(r["media"].startswith("train2014/") for r in part)
    assert {r["dataset"] for r in part} == {"vqa"}
    assert vqa.run_plain("pretrain")[0] == 0
    merged = vqa.rows("pretrain_ours/vision_language_qa.tsv", "pretrain")
    assert {r["dataset"] for r in merged} == {"vqa", "vqa_vg"}


def answers_like(rng: np.random.Generator, count: int) -> list[str]:
    """Predictions as a closed list gives them: normalised answers, some that nobody gave."""
    words = ["red", "blue", "dark red", "t shirt", "2", "dog", "yes", "zebu"]
    return [words[k] for k in rng.integers(0, len(words), count)]


@pytest.mark.parametrize("corpus", ["vqa", "okvqa", "vizwiz"])
def test_scores_of_prepared_tables_are_the_official_accuracy(vqa, corpus, tmp_path):
    humans = drawn(40, corpus)
    humans[3] = ["t-shirt"] * 10  # all said the same: the official tool compares their very words
    humans[4] = ["the"] * 10
    options: tuple[str, ...] = ()
    if corpus == "vqa":
        table, names = (
            "vqa_fullval",
            ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
        )
        options = ("--train-on", "train", "--min-answer-count", "1", "--reserved-images", "2")
    else:
        table, names = (
            "okvqa_acc_val",
            ("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
        )
    if corpus == "vizwiz":
        table, names = "vizwiz_acc_val", ("", "val.json")
        vqa.write("val.json", [
            {"image": f"VizWiz_val_{n:08d}.jpg", "question": "What is it?", "answer_type": "other", "answerable": 1,
             "answers": [{"answer": a, "answer_confidence": "yes"} for a in said]}
            for n, said in enumerate(humans)
        ])  # fmt: skip
    else:
        vqa_pair(vqa, *names, [(900 + n, 500 + n, said) for n, said in enumerate(humans)])
    code, text = vqa.run(corpus, *options)
    assert code == 0, text

    spec = get_spec("vqa")
    official = SpecOptions(protocol="official")
    opened = open_table(str(vqa.out / f"vqa_data/{table}.tsv"), spec.fields, spec.layout)
    items = gather(spec, opened, official)
    by_id = {item.id: humans[k] for k, item in enumerate(items)}
    assert [item.raw_answers for item in items] == humans
    predictions = answers_like(rng_for(7, 0, 0, f"{corpus} predictions"), len(items))
    ids = [item.id for item in items]
    scored = score_predictions(
        spec,
        predictions,
        [i.reference for i in items],
        official,
        ids,
        raw_answers=[i.raw_answers for i in items],
    )
    direct = vqa_accuracy(dict(zip(ids, predictions, strict=True)), by_id)
    assert scored.metrics["vqa_accuracy"] == float(direct)
    assert scored.metrics["vqa_score"] == pytest.approx(
        np.mean([direct.per_item[name]["accuracy"] for name in ids]), abs=1e-9
    )
    np.testing.assert_allclose(scored.per_item["vqa_score"], scored.per_item["vqa_accuracy"], atol=1e-9)
    assert 0.1 < scored.metrics["vqa_score"] < 0.8

    # the same from the official annotations, with predictions as they are saved and as EvalAI reads them
    saved = tmp_path / "predictions.jsonl"
    lines = [{"id": key, "prediction": text} for key, text in zip(ids, predictions, strict=True)]
    saved.write_text("".join(json.dumps(line) + "\n" for line in lines))
    kind = "as-is" if corpus == "vizwiz" else "int"
    references = io.read_references(vqa.official / names[1], "vqa", kind).values
    assert float(vqa_accuracy(io.read_predictions(saved, "vqa", kind), references)) == float(direct)
    results = tmp_path / "results.json"
    io.write_results(results, io.read_predictions(saved, "vqa"), "vqa")
    keys = {key for row in json.loads(results.read_text()) for key in row}
    assert keys == ({"image", "answer"} if corpus == "vizwiz" else {"question_id", "answer"})
    assert float(vqa_accuracy(io.read_predictions(results, "vqa"), references)) == float(direct)


def test_tables_without_human_answers_are_refused_for_the_official_accuracy(vqa):
    from unival.errors import DataError
    from unival.evaluate.scoring import check_answers

    assert vqa.run("vqa", "--reserved-images", "5", "--min-answer-count", "1")[0] == 0
    spec = get_spec("vqa")
    table = open_table(str(vqa.out / "vqa_data/vqa_train_1.tsv"), spec.fields, spec.layout)
    items = gather(spec, table, SpecOptions())
    assert {item.raw_answers for item in items} == {None}
    with pytest.raises(DataError, match="human_answers"):
        check_answers(
            spec, SpecOptions(protocol="official"), [i.id for i in items], [i.raw_answers for i in items]
        )
