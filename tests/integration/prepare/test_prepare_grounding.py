"""RefCOCO pickles (also of Python 2, also hostile) and Visual Genome regions."""

from __future__ import annotations

import pickle

import pytest

from unival.specs import SpecOptions, get_spec
from unival.tables import open_table

INSTANCES = {
    "images": [
        {"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "height": 40, "width": 60} for n in range(1, 6)
    ],
    "annotations": [{"id": 100 + n, "image_id": n, "bbox": [10.0, 5.5, 20.25, 30.0]} for n in range(1, 6)],
}


def ref(n, split, *sentences, ann=None):
    return {
        "ref_id": n,
        "ann_id": ann or 100 + n,
        "category_id": 1,
        "image_id": n,
        "split": split,
        "file_name": f"COCO_train2014_{n:012d}_0.jpg",
        "sent_ids": [10 * n + k for k in range(len(sentences))],
        "sentences": [
            {"sent_id": 10 * n + k, "sent": text, "raw": f"Raw {text}", "tokens": text.split()}
            for k, text in enumerate(sentences)
        ],
    }


def refs():
    return [
        ref(1, "train", "dog on\tleft", "le café", "  "),
        ref(2, "val", "right man"),
        ref(3, "testA", "the child"),
        ref(4, "testB", "bowl"),
        {**ref(4, "train", "leaks"), "ref_id": 9},
    ]


def test_refcoco(place):
    place.write("instances.json", INSTANCES)
    place.write("refs(unc).p", refs())
    assert place.run("refcoco", "--media-root", str(place.root / "coco"), "--wording", "sent")[0] == 0
    train = place.rows("refcoco_data/refcoco_train_1.tsv", "grounding")
    assert sorted((row["id"], row["text"], row["box"]) for row in train) == [
        ("1_10", "dog on left", "10.00,5.50,30.25,35.50"),
        ("1_11", "le café", "10.00,5.50,30.25,35.50"),
    ]
    assert {row["image"] for row in train} == {"coco/train2014/COCO_train2014_000000000001.jpg"}
    assert len(place.rows("refcoco_data/refcoco_train.tsv", "grounding")) == 2
    seen = set()
    for split in ("train", "val", "testA", "testB"):
        images = {row["image"] for row in place.rows(f"refcoco_data/refcoco_{split}.tsv", "grounding")}
        assert images and not images & seen
        seen |= images
    assert place.dropped("refcoco")["medium is also in an evaluation split"] == 1
    place.images(*seen)
    assert len(place.examples("refcoco_data/refcoco_train_2.tsv", "grounding", "image")) == 2
    table = open_table(str(place.out / "refcoco_data/refcoco_testB.tsv"), layout="grounding", header=False)
    assert get_spec("grounding").reference(table[0], SpecOptions()) == (10.0, 5.5, 30.25, 35.5)
    part = place.rows("pretrain_ours/parts/refcoco_ground.tsv", "pretrain")
    assert {(r["type"], r["refs"], r["question"]) for r in part} == {
        ("visual_grounding", "10.00,5.50,30.25,35.50", "")
    }


def python2(value):
    """Pickle opcodes of Python 2 at protocol 2: its ``str`` are byte strings, its ``unicode`` text."""
    if isinstance(value, dict):
        items = b"".join(python2(k) + python2(v) for k, v in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value
    if isinstance(value, str):
        data = value.encode()
        return b"X" + len(data).to_bytes(4, "little") + data
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    raise TypeError(value)


def python2_text(value):
    """The same at protocol 0, Python 2's default: a text format."""
    if isinstance(value, dict):
        return b"(d" + b"".join(python2_text(k) + python2_text(v) + b"s" for k, v in value.items())
    if isinstance(value, list):
        return b"(l" + b"".join(python2_text(v) + b"a" for v in value)
    if isinstance(value, bytes):
        return b"S" + repr(value).encode()[1:] + b"\n"
    if isinstance(value, str):
        return b"V" + value.encode("raw-unicode-escape") + b"\n"
    return b"L" + str(value).encode() + b"L\n"


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_pickle_of_python_2(place, protocol):
    def narrow(value):  # what Python 2 called str
        if isinstance(value, dict):
            return {narrow(k): narrow(v) for k, v in value.items()}
        if isinstance(value, list):
            return [narrow(v) for v in value]
        return value.encode("utf-8") if isinstance(value, str) else value

    content = narrow(refs())
    content[0][b"sentences"][0][b"sent"] = "stays text é"  # Python 2's unicode
    content[0][b"sentences"][1][b"sent"] = "caf\xe9".encode("latin-1")
    path = place.official / "refs(umd).p"
    place.write("instances.json", INSTANCES)
    path.write_bytes(b"\x80\x02" + python2(content) + b"." if protocol else python2_text(content) + b".")
    assert b"sent" in pickle.loads(path.read_bytes(), encoding="bytes")[0][b"sentences"][0]
    assert place.run("refcocog", "--wording", "sent")[0] == 0
    texts = {row["text"] for row in place.rows("refcocog_data/refcocog_train.tsv", "grounding")}
    assert texts == {"stays text é", "café"}


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("corpus", ["refcoco", "webvidqa"])
def test_a_hostile_pickle_is_refused_and_not_run(place, raises_data_error, corpus):
    place.write("instances.json", INSTANCES)
    place.write("results_2M_train.csv", "videoid,page_dir,name\n1,a,b\n")
    target = place.root / "executed"
    name = "refs(unc).p" if corpus == "refcoco" else "webvidvqa.pkl"
    place.write(name, [Hostile(target)])
    text = raises_data_error(corpus)
    assert name in text and "nothing in it was run" in text and "mkdir" in text
    assert not target.exists()
    pickle.loads((place.official / name).read_bytes())
    assert target.exists(), "the pickle would have run"


def test_visual_genome(place):
    def region(n, x, y, w, h, phrase):
        return {"region_id": n, "image_id": 1, "x": x, "y": y, "width": w, "height": h, "phrase": phrase}

    regions = [
        region(1, -2, 5, 30, 30, "a small\ndog"),
        region(2, 0, 0, 200, 100, "a long street"),
        region(3, 150, 50, 100, 100, "past the border"),
        region(4, 5, 5, 0, 10, "no width"),
        region(1, 5, 5, 9, 9, "the id again"),
    ]
    place.write("region_descriptions.json", [{"id": 1, "regions": regions}])
    place.write("objects.json", [{"image_id": 1, "objects": [{"names": ["dog"]}, {"names": ["dog", "pet"]}]}])
    data = {"image_id": 1, "url": "http://x/VG_100K_2/1.jpg", "width": 200, "height": 100, "coco_id": 77}
    place.write("image_data.json", [data])
    objects = str(place.official / "objects.json")
    assert place.run("visual_genome", "--objects", objects, "--media-name", "vg/{folder}/{file}")[0] == 0
    ground = place.rows("pretrain_ours/parts/vg_ground.tsv", "pretrain")
    assert [(r["id"], r["caption"], r["refs"]) for r in ground] == [
        ("vg1", "a small dog", "0.00,5.00,28.00,35.00"),
        ("vg3", "past the border", "150.00,50.00,200.00,100.00"),
    ]
    assert ground[0]["objects"] == "dog&&pet" and ground[0]["media"] == "vg/VG_100K_2/1.jpg"
    (caption,) = place.rows("pretrain_ours/parts/vg_caption.tsv", "pretrain")
    assert (caption["caption"], caption["type"]) == ("a long street", "caption")
    name = "pretrain_ours/parts/vg_ground"
    assert place.dropped("visual_genome") == {f"box without an area, {name}": 1, f"id twice, {name}": 1}

    # the picture is COCO's image 77, which a test table holds
    table = place.root / "caption_test.tsv"
    table.write_text("1\t77\ta test\t\tx.jpg\n", encoding="utf-8")
    place.write(
        "region_descriptions.json", [{"id": 1, "regions": regions}, {"id": 2, "regions": regions[:1]}]
    )
    assert place.run("visual_genome", "--exclude", str(table), "--media-name", "vg/{folder}/{file}")[0] == 0
    assert [r["media"] for r in place.rows(f"{name}.tsv", "pretrain")] == ["vg/VG_100K/2.jpg"]
    dropped = place.dropped("visual_genome")
    assert dropped[f"medium is in a table of --exclude, {name}"] == 4
    assert dropped["medium is in a table of --exclude, pretrain_ours/parts/vg_caption"] == 1
