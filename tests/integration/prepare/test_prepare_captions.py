"""COCO, nocaps and the lists of web captions, from miniatures in the official formats."""

from __future__ import annotations

import base64
import json

from unival.metrics import caption_scores
from unival.metrics.io import read_references
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table


def karpathy(*images: tuple[int, str, list[str]]) -> dict:
    """``dataset_coco.json`` as published, with the keys that matter and some that do not."""
    out, sentid = [], 0
    for cocoid, split, captions in images:
        folder = "train2014" if split == "train" else "val2014"
        sentences = []
        for text in captions:
            sentences.append({"tokens": text.split(), "raw": text, "imgid": cocoid, "sentid": sentid})
            sentid += 1
        name = f"COCO_{folder}_{cocoid:012d}.jpg"
        out.append(
            {
                "filepath": folder,
                "sentids": [s["sentid"] for s in sentences],
                "filename": name,
                "imgid": len(out),
                "split": split,
                "sentences": sentences,
                "cocoid": cocoid,
            }
        )
    return {"images": out, "dataset": "coco"}


MINI = karpathy(
    (9, "train", ["A dog\ton the grass.", "Café && bar,\nat night.", "..."]),
    (25, "restval", ["Two dogs."]),
    (30, "val", ["A red bus.", "The bus is red."]),
    (34, "test", ["A cat on a mat.", "A cat \U0001f431 sleeps."]),
    (36, "test", ["A man on a horse."]),
    (34, "train", ["A picture of the test set."]),
)
FILES = [f"coco/{i['filepath']}/{i['filename']}" for i in MINI["images"][:-1]]


def test_coco(place):
    place.write("dataset_coco.json", MINI)
    place.write(
        "instances_train2014.json",
        {"categories": [{"id": 18, "name": "dog"}], "annotations": [{"image_id": 9, "category_id": 18}]},
    )
    place.images(*FILES[:-1])  # the last picture of the test set is missing
    instances = str(place.official / "instances_train2014.json")
    options = "--check-media", "--decode", "3", "--text", "original", "--instances-train", instances
    code, text = place.run("coco", "--media-root", str(place.root / "coco"), *options)
    assert code == 0, text

    train = place.rows("caption_data/caption_stage1_train_1.tsv", "caption")
    assert {(row["id"], row["image"], row["caption"]) for row in train} == {
        ("0", FILES[0], "A dog on the grass."),
        ("1", FILES[0], "Café & bar, at night."),
        ("3", FILES[1], "Two dogs."),
    }
    orders = {
        tuple(row["id"] for row in place.rows(f"caption_data/caption_stage1_train_{n}.tsv", "caption"))
        for n in range(1, 11)
    }
    assert all(sorted(order) == ["0", "1", "3"] for order in orders) and len(orders) > 1
    (val,) = place.rows("caption_data/caption_val.tsv", "caption", "1,4,2")
    assert val == {"id": "30", "image": FILES[2], "caption": "A red bus.&&The bus is red."}
    spec, table = (
        get_spec("caption"),
        open_table(str(place.out / "caption_data/caption_test.tsv"), layout="caption", header=False),
    )
    assert spec.reference(table[0], SpecOptions()) == ["A cat on a mat.", "A cat \U0001f431 sleeps."]
    assert len(table) == 1

    report = place.report("coco")
    assert report["records"] == {"train": 3, "val": 1, "test": 2}
    assert report["missing_media"] == {
        "count": 1,
        "first": {MINI["images"][4]["filepath"] + "/" + FILES[4][13:]: 1},
    }
    dropped = place.dropped("coco")
    assert dropped == {"medium is also in an evaluation split": 1, "media file missing": 1}
    assert report["repaired"] == {
        "'&&' inside a text": 1,
        "caption without a word left out": 1,
        "tab or line break inside a text": 2,
    }
    assert any("scores on it are not those of the official split" in note for note in report["notes"])
    assert "missing media: 1 files" in text

    references = read_references(
        str(place.out / "caption_data/test_caption_coco_format.json"), "caption"
    ).values
    assert references == {34: ["A cat on a mat.", "A cat \U0001f431 sleeps."]}
    assert caption_scores({34: "a cat on a mat"}, references, metrics=("bleu",)).corpus["Bleu_4"] > 0.9

    examples = place.examples("caption_data/caption_stage1_train_1.tsv", "caption", "image")
    assert len(examples) == 3 and all(e.media.shape == (3, 32, 32) for e in examples)
    parts = place.rows("pretrain_ours/parts/coco_caption.tsv", "pretrain")
    assert {(row["id"], row["objects"], row["dataset"], row["type"]) for row in parts} == {
        ("coco_0", "dog", "coco", "caption"),
        ("coco_1", "dog", "coco", "caption"),
        ("coco_3", "", "coco", "caption"),
    }


def test_images_inside_the_table(place):
    place.write("dataset_coco.json", karpathy((9, "train", ["A dog."]), (30, "val", ["A bus."])))
    name = "train2014/COCO_train2014_000000000009.jpg"
    place.images(name, "val2014/COCO_val2014_000000000030.jpg")
    assert place.run("coco", "--base64", "--shuffles", "2")[0] == 0
    (row,) = place.rows("caption_data/caption_stage1_train_2.tsv", "caption")
    assert base64.b64decode(row["image"]) == (place.root / name).read_bytes()
    assert place.examples("caption_data/caption_stage1_train_2.tsv", "caption", "image")[0].media.shape == (
        3,
        32,
        32,
    )
    assert not (place.out / "caption_data/caption_stage1_train_3.tsv").exists()


def test_images_in_an_archive(place):
    import tarfile

    place.write("dataset_coco.json", karpathy((9, "train", ["A dog."]), (10, "train", ["A cat."])))
    name = "train2014/COCO_train2014_000000000009.jpg"
    place.images(name)
    with tarfile.open(place.root / "coco.tar", "w") as archive:
        archive.add(place.root / name, name)
    code, _ = place.run(
        "coco", "--media-root", str(place.root / "coco.tar"), "--check-media", "--shuffles", "1"
    )
    assert code == 0 and place.report("coco")["missing_media"]["count"] == 1
    (example,) = place.examples("caption_data/caption_stage1_train_1.tsv", "caption", "image")
    assert example.media.shape == (3, 32, 32)


def test_the_same_seed_gives_the_same_files(place):
    place.write("dataset_coco.json", karpathy(*((n, "train", [f"Picture {n}."]) for n in range(20))))
    contents = []
    for seed in ("7", "7", "8"):
        assert place.run("coco", "--seed", seed, "--shuffles", "2")[0] == 0
        contents.append((place.out / "caption_data/caption_stage1_train_2.tsv").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_nocaps(place):
    domains = ("in-domain", "near-domain", "out-domain")
    images = [
        {"id": n, "file_name": f"{n:016x}.jpg", "domain": domain, "open_images_id": f"{n:016x}"}
        for n, domain in enumerate(domains)
    ]
    annotations = [
        {"image_id": n, "id": 10 * n + k, "caption": f"Thing {n}, wording {k}\u2028here."}
        for n in range(3)
        for k in range(2)
    ]
    place.write("nocaps_val_4500_captions.json", {"info": {}, "images": images, "annotations": annotations})
    place.write("nocaps_test_image_info.json", {"images": [{"id": 0, "file_name": "test0.jpg"}]})
    assert place.run("nocaps", "--media-name", "nocaps/{split}/{file}")[0] == 0
    rows = place.rows("caption_data/nocaps_val.tsv", "caption", "1,4,2")
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["caption"] == "Thing 1, wording 0 here.&&Thing 1, wording 1 here."
    for number, name in enumerate(("indomain", "neardomain", "outdomain")):
        assert place.rows(f"caption_data/nocaps_{name}_val.tsv", "caption", "1,4,2") == [rows[number]]
    test = list(open_table(str(place.out / "caption_data/nocaps_test.jsonl")))
    assert [(row["id"], row["image"]) for row in test] == [("0", "nocaps/test/test0.jpg")]
    content = json.loads((place.out / "caption_data/nocaps_val_caption_coco_format.json").read_text())
    assert [i["id"] for i in content["images"]] == [0, 1, 2] and len(content["annotations"]) == 6


def test_cc3m_cc12m_and_sbu(place):
    place.write("Train_GCC-training.tsv", "a dog\t<PERSON>\thttp://x/1.jpg\né́ cat\thttp://x/2.jpg?w=1\n")
    place.write("cc12m.tsv", "http://x/7.jpg\tthe\tsea\nhttp://x/8.jpg\t!!!\n")
    place.write(
        "sbu-captions-all.json",
        {"image_urls": ["http://x/a.jpg", "http://x/b.jpg"], "captions": ["a\nb", "c"]},
    )
    place.images("cc/00000/000000001.jpg")
    assert (
        place.run("cc3m", "--media-root", str(place.root / "cc"), "--check-media", "--text", "original")[0]
        == 0
    )
    (row,) = place.rows("pretrain_ours/parts/cc3m_caption.tsv", "pretrain")
    assert (row["id"], row["media"], row["caption"]) == ("cc3m1", "cc/00000/000000001.jpg", "é́ cat")
    assert place.report("cc3m")["missing_media"]["first"] == {"00000/000000000.jpg": 1}
    assert place.run("cc12m", "--media-name", "cc12m/{url_file}")[0] == 0
    (row,) = place.rows("pretrain_ours/parts/cc12m_caption.tsv", "pretrain")
    assert (row["media"], row["dataset"], row["type"]) == ("cc12m/7.jpg", "cc12m", "caption")
    assert row["caption"] == "the sea"
    assert place.dropped("cc12m") == {"no caption with a word, pretrain_ours/parts/cc12m_caption": 1}
    assert place.run("sbu")[0] == 0
    assert [r["caption"] for r in place.rows("pretrain_ours/parts/sbu_caption.tsv", "pretrain")] == [
        "a b",
        "c",
    ]
