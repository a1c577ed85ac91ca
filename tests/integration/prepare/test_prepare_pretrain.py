"""Merged pretraining tables and what wrong captions and answers are drawn from."""

from __future__ import annotations

import json

import numpy as np

from unival.datatools.corpora.pretrain import answer_types, unique
from unival.specs import NegativePool, PretrainSpec, SpecOptions
from unival.tables import open_table


def part(place, name, rows):
    path = place.out / "pretrain_ours" / "parts" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def parts(place):
    captions = [
        [f"coco_{n}", "a.jpg", f"caption ä {n % 8}", "", "", "dog&&cat", "coco", "caption"] for n in range(9)
    ]
    part(place, "coco_caption", captions)
    counts = [[f"q{n}", "a.jpg", "", "How many dogs?", f"1.0|!+{n}", "", "vqa", "qa"] for n in range(3)]
    colour = ["q3", "a.jpg", "", "What colour?", "0.6667|!+pink&&1.0|!+red", "", "vqa", "qa"]
    part(place, "vqa_qa", [*counts, colour])
    ground = [
        "refcoco_1",
        "a.jpg",
        "left dog",
        "",
        "1.00,2.00,30.00,20.00",
        "dog",
        "refcoco",
        "visual_grounding",
    ]
    part(place, "refcoco_ground", [ground])
    part(place, "webvid_video_caption", [["w1", "v.mp4", "waves", "", "", "", "webvid", "video_caption"]])
    part(
        place,
        "webvid_video_qa",
        [["w2", "v.mp4", "", "What is it?", "1.0|!+sea", "", "webvidqa", "video_qa"]],
    )


def test_parts_become_the_tables_of_the_recipes(place):
    parts(place)
    assert place.run_plain("pretrain")[0] == 0
    folder = place.out / "pretrain_ours"
    spec, options = PretrainSpec(), SpecOptions()
    kinds = {}
    for name in ("vision_language_caption", "vision_language_qa", "vision_language_ground",
                 "vision_language_mini_vqa_ground", "video_mini_webvid2mccapqa"):  # fmt: skip
        table = open_table(str(folder / f"{name}.tsv"), fields=spec.fields, layout=spec.layout)
        kinds[name] = sorted(row["type"] for row in table)
        for row in table:
            assert spec.reference(row, options)
    assert kinds["vision_language_mini_vqa_ground"] == ["caption"] * 9 + ["qa"] * 4 + ["visual_grounding"]
    assert kinds["video_mini_webvid2mccapqa"] == ["video_caption", "video_qa"]
    merged = [
        row["id"]
        for row in open_table(str(folder / "vision_language_mini_vqa_ground.tsv"), layout="pretrain")
    ]
    assert len(set(merged)) == 14 and merged != sorted(merged), "shuffled"
    assert not (folder / "cc12m.tsv").exists()
    assert not list(folder.rglob("*.part*")), "nothing temporary stays"
    assert any("cc12m: without cc12m_caption" in note for note in place.report("pretrain")["notes"])
    assert place.report("pretrain")["tables"]["pretrain_ours/vision_language_caption.tsv"] == 9


def test_negatives_are_what_pretraining_reads(place):
    parts(place)
    assert place.run_plain("pretrain", "--min-object-count", "10")[0] == 0
    folder = place.out / "pretrain_ours/negative_sample"
    assert len((folder / "all_captions.txt").read_text(encoding="utf-8").splitlines()) == 8, (
        "each caption once"
    )
    assert (folder / "object.txt").read_text() == "dog\n", "cat is named nine times, dog ten times"
    types = json.loads((folder / "type2ans.json").read_text())
    assert types == {"how many": ["0", "1", "2"], "other": ["red", "sea"]}
    pool = NegativePool.from_folder(folder, captions_video=str(folder / "all_captions_video.txt"))
    assert list(pool.captions["video"]) == ["waves"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert pool.caption(rng, ["caption ä 1"], "image", ["dog"]) != "caption ä 1"
        wrong = pool.answer(rng, {"1": 1.0}, "1")
        assert isinstance(wrong, str) and wrong in {"0", "2", "red", "sea"}, "trap T37"


def test_nothing_to_merge(place):
    code, text = place.run_plain("pretrain")
    assert code == 2 and "prepare corpora first" in text


def test_answer_types_and_unique():
    pairs = [
        ("Is it, now?", "1.0|!+yes"),
        ("Is it?", "1.0|!+no"),
        ("other day", "1.0|!+x"),
        ("Why?", "1.0|!+x"),
    ]
    assert answer_types(pairs) == {"other": ["no", "x", "yes"]}
    assert answer_types([("How many?", "1.0|!+1"), ("how many?", "0.3|!+2&&1.0|!+3")])["how many?"] == [
        "1",
        "3",
    ]
    assert list(unique(["a", "b", "", "a"])) == ["a", "b"]
