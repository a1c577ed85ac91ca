"""COCO for text-to-image, from the official captions to ten tables of codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.imagegen_fixtures import CODES, inception_file, vqgan_file
from tests.support.needs import needs
from unival.cli import main
from unival.media import MediaLoader
from unival.metrics.images import read_statistics
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table
from unival.vocabulary import Vocabulary

pytestmark = needs("torch_fidelity")


@pytest.fixture
def coco(place: Any) -> Any:
    """captions_train2014.json and captions_val2014.json as published: 6 and 12 pictures, captions of each."""
    rng = np.random.default_rng(0)
    for part, first, count, per in (("train", 0, 6, 5), ("val", 100, 12, 3)):
        images = [
            {"id": n, "file_name": f"COCO_{part}2014_{n:012d}.jpg"} for n in range(first, first + count)
        ]
        annotations = [
            {"id": 1000 * n["id"] + k, "image_id": n["id"], "caption": f"A Picture, {n['id']} worded {k}."}
            for n in images
            for k in range(per)
        ]
        place.write(f"captions_{part}2014.json", {"images": images, "annotations": annotations})
        for image in images:
            path = place.root / f"coco/{part}2014" / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(pixels).save(path)
    return place


def prepared(coco: Any, *options: str) -> dict[str, list[dict[str, Any]]]:
    words = "--media-root", str(coco.root / "coco"), "--test-pictures", "8", "--dev-pictures", "3", *options
    code, text = coco.run("image_gen", *words)
    assert code == 0, text
    names = ("train", "dev", "full_test")
    return {name: coco.rows(f"image_gen_data/coco_captions_{name}.tsv", "caption") for name in names}


def test_train2014_is_learnt_and_drawn_pictures_of_val2014_are_tested_on(coco):
    tables = prepared(coco, "--check-media")
    assert [len(rows) for rows in tables.values()] == [6, 3, 8]
    assert all("train2014" in row["image"] for row in tables["train"])
    assert all("val2014" in row["image"] for row in [*tables["dev"], *tables["full_test"]])
    pictures = [row["image"] for rows in tables.values() for row in rows]
    assert len(set(pictures)) == len(pictures)
    assert tables["train"][0]["caption"].split("&&") == [f"a picture, 0 worded {k}." for k in range(5)]
    assert all("&&" not in row["caption"] for row in tables["full_test"]), "one caption each"
    assert len({row["caption"][-2] for row in tables["full_test"]}) > 1, "a drawn one, not the first"
    assert prepared(coco) == tables and prepared(coco, "--seed", "8") != tables


def test_more_pictures_than_there_are_is_refused(coco):
    code, text = coco.run("image_gen")
    assert code == 2 and "--test-pictures 30000" in text and "12 pictures" in text


def documented(coco: Any) -> list[list[str]]:
    """The commands of docs/image-generation.md, with the places and sizes of this miniature."""
    page = (Path(__file__).resolve().parents[3] / "docs/image-generation.md").read_text()
    (block,) = re.findall(r"```bash\n(unival data prepare image_gen.*?)```", page, re.DOTALL)
    block = block.replace("\\\n", " ")
    for name, value in re.findall(r"^([A-Z])=(.*)$", block, re.MULTILINE):
        block = block.replace(f"${name}", value.strip('"'))
    weights = {
        "weights/vqgan/last.ckpt --vqgan-config-path weights/vqgan/model.yaml": vqgan_file(coco.root),
        "weights/inception/weights-inception-2015-12-05-6726825d.pth": inception_file(coco.root),
    }
    for shown, path in weights.items():
        block = block.replace(shown, str(path))
    block = block.replace("downloads/coco_captions", str(coco.official)).replace("userdata", str(coco.root))
    small = {"prepare": ["--test-pictures", "8", "--dev-pictures", "3"], "codes": ["--code-image-size", "32"]}
    lines = [line.split()[1:] for line in block.splitlines() if line.startswith("unival ")]
    return [[*words, *small.get(words[1], [])] for words in lines]


def test_ten_tables_of_codes_from_the_official_captions(coco, capsys):
    commands = documented(coco)
    assert [words[1] for words in commands] == ["prepare", "codes", "codes", "codes", "fid-statistics"]
    for words in commands:
        assert main(words) == 0
    folder = coco.out / "image_gen_data"
    vocabulary, options = Vocabulary.train(["a picture"], 256, CODES, 10), SpecOptions(code_image_size=32)
    spec = get_spec("image_gen")
    orders = set()
    for number in range(1, 11):
        lines = (folder / f"coco_vqgan_train_{number}.tsv").read_text().splitlines()
        orders.add(tuple(lines))
        assert sorted(lines) == sorted(next(iter(orders))) and len(lines) == 30
        table = open_table(str(folder / f"coco_vqgan_train_{number}.tsv"), spec.fields, spec.layout_name)
        example = spec.examples(table[0], MediaLoader(), options, vocabulary, training=True)[0]
        assert len(example.target) == 16 + 1 and example.reference["text"].startswith("a picture, ")
    assert len(orders) == 10 and not (folder / "coco_vqgan_train.tsv").exists()
    assert json.loads((folder / "coco_vqgan_train.tsv.json").read_text())["rows"] == 30
    test = [line.split("\t") for line in (folder / "coco_vqgan_full_test.tsv").read_text().splitlines()]
    assert len(test) == 8 == len({row[0] for row in test}) and not list(folder.glob(".*"))
    assert read_statistics(folder / "gt_stat.npz")[0].shape == (2048,)
    assert json.loads((folder / "gt_stat.npz.json").read_text())["pictures"] == 8
    capsys.readouterr()
    assert main(["data", "codes", "x", "--out", "y", "--vqgan-model-path", "z", "--shuffles", "-1"]) == 2
    assert "--shuffles is -1" in capsys.readouterr().err
