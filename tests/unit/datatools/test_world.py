"""The sample world: real media, consistent tables, disjoint splits, the same bytes from the same seed."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from unival.cli import sample, vocabulary
from unival.datatools.world import render
from unival.datatools.world.attributes import COLOURS, HELD_OUT, split_of
from unival.datatools.world.sounds import draw_sound
from unival.errors import ConfigError
from unival.tables import open_table
from unival.vocabulary import Vocabulary

SMALL: dict[str, Any] = {"images": 160, "clips": 40, "sounds": 40}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "base"
    render(folder, **SMALL)
    return folder


def items(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "world.json").read_text())["items"]


def tsv(folder: Path, name: str) -> list[list[str]]:
    return [line.split("\t") for line in (folder / "tables" / f"{name}.tsv").read_text().splitlines()]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    sizes = {"images": 12, "clips": 8, "sounds": 8}
    render(tmp_path / "a", seed=5, **sizes)
    code = f"from unival.datatools.world import render; render({str(tmp_path / 'b')!r}, seed=5, **{sizes})"
    environment = {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    render(tmp_path / "c", seed=6, **sizes)
    assert (
        digests(tmp_path / "a")["images/test_00000.jpg"] != digests(tmp_path / "c")["images/test_00000.jpg"]
    )


def test_media_are_what_their_names_say(world: Path) -> None:
    for path in (world / "images").iterdir():
        with Image.open(path) as picture:
            assert picture.format == {".jpg": "JPEG", ".png": "PNG"}[path.suffix]
            assert min(picture.size) == 64
    for path in (world / "videos").iterdir():
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert 8 <= sum(1 for _ in container.decode(video=0)) <= 16
    rates = Counter()
    for path in (world / "audio").iterdir():
        info = soundfile.info(str(path))
        assert (info.format, info.subtype, info.channels) == (path.suffix[1:].upper(), "PCM_16", 1)
        assert 1.0 <= info.duration <= 2.2
        rates[info.samplerate] += 1
    assert set(rates) == {16000, 48000}


@pytest.mark.parametrize(
    ("name", "layout", "media"),
    [
        ("caption_test", "caption", "image"),
        ("vqa_val", "vqa", "image"),
        ("grounding_test", "grounding", "image"),
        ("entailment_train", "entailment", "image"),
        ("video_caption_train", "video_caption", "video"),
        ("video_vqa_test", "video_vqa", "video"),
        ("audio_caption_test", "audio_caption", "audio"),
    ],
)
def test_tables_open_in_the_released_layouts(world: Path, name: str, layout: str, media: str) -> None:
    table = open_table(world / "tables" / f"{name}.tsv", layout=layout, media_root=str(world))
    assert len(table) > 0
    for row in table:
        assert (world / row[media]).is_file()
        assert f"/{name.rpartition('_')[2]}_" in row[media]


def test_splits_share_no_content(world: Path) -> None:
    seen: dict[str, set[str]] = {}
    for item in items(world):
        assert split_of(item["content"]) == item["split"]
        seen.setdefault(item["split"], set()).add(item["content"])
    assert seen["train"] and seen["val"] and seen["test"]
    assert (
        not seen["train"] & seen["test"]
        and not seen["train"] & seen["val"]
        and not seen["val"] & seen["test"]
    )


@pytest.mark.parametrize("split, rows", [("val", 96), ("test", 180)])
def test_no_few_contents_decide_the_score_of_sounds(split: str, rows: int) -> None:
    """The rows of the quickstart's splits. With most sounds of one event four contents were 72 of 96 rows."""
    rng = np.random.default_rng(0)
    counts = Counter(draw_sound(rng, split, held_out=False).content() for _ in range(rows))
    assert len(counts) > 0.45 * rows
    assert sum(count for _, count in counts.most_common(5)) < 0.35 * rows


def test_boxes_hold_their_thing_and_touch_it(world: Path) -> None:
    for item in items(world):
        if not item["id"].startswith("i_"):
            continue
        with Image.open(world / item["path"]) as opened:
            pixels = np.asarray(opened.convert("RGB"), dtype=int)
        height, width = pixels.shape[:2]
        for thing in item["attributes"]["things"]:
            x0, y0, x1, y1 = thing["box"]
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            near = np.abs(pixels - COLOURS[thing["color"]]).sum(axis=2) < 60
            inside = near[round(y0) : round(y1), round(x0) : round(x1)]
            assert inside.mean() > 0.12  # a small star, less its darker edge, fills a sixth of its box
            assert inside[inside.shape[0] // 2, inside.shape[1] // 2]


def test_answers_are_true_and_from_the_closed_list(world: Path) -> None:
    scenes = {item["id"]: item["attributes"] for item in items(world)}
    closed = (world / "answers" / "vqa.txt").read_text().splitlines()
    counts: Counter[str] = Counter()
    for _, image, question, answers, *_ in tsv(world, "vqa_train"):
        best = answers.split("&&")[0].removeprefix("1.0|!+")
        assert best in closed
        counts[best] += 1
        things = scenes[image]["things"]
        named = [t for t in things if f"{t['color']} {t['shape']}" in question]
        if question.startswith(("is there", "does the picture")):
            assert best == ("yes" if named else "no")
        elif "where" in question or "which part" in question:
            assert [best] == [t["place"] for t in named]
        elif "color" in question:
            assert [best] == [t["color"] for t in things if t["shape"] in question]
        elif question.startswith("how many"):
            assert best == str(len(things))
    assert max(counts.values()) < 0.2 * sum(counts.values())


def test_video_answers_are_true(world: Path) -> None:
    clips = {item["id"]: item["attributes"] for item in items(world)}
    closed = (world / "answers" / "video_vqa.txt").read_text().splitlines()
    for _, video, question, answers, empty, _ in tsv(world, "video_vqa_train"):
        clip, best = clips[video], answers.removeprefix("1.0|!+")
        assert best in closed and empty == ""
        if "what does" in question or "happens" in question:
            assert best.split()[-1] == clip["action"]
        elif "how many" in question:
            assert best == ("2" if clip["other"] else "1")


def test_entailment_and_matching_are_balanced_and_matches_name_what_is_there(world: Path) -> None:
    labels = Counter(row[5] for row in tsv(world, "entailment_train"))
    assert set(labels) == {"entailment", "neutral", "contradiction"}
    assert max(labels.values()) - min(labels.values()) <= 1
    scenes = {
        item["path"]: item["attributes"]["things"] for item in items(world) if item["id"].startswith("i_")
    }
    with (world / "tables" / "matching_train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"match", "mismatch"}
    for row in rows:
        every = all(f"{t['color']} {t['shape']}" in row["text"] for t in scenes[row["image"]])
        assert every == (row["label"] == "match")


def test_captions_have_several_references_outside_training(world: Path) -> None:
    for kind in ("caption", "video_caption", "audio_caption"):
        assert all("&&" not in row[2] for row in tsv(world, f"{kind}_train"))
        for row in tsv(world, f"{kind}_test"):
            references = row[2].split("&&")
            assert len(set(references)) == len(references) >= 3


def test_pretraining_rows_and_pools(world: Path) -> None:
    rows = tsv(world, "pretrain_image")
    assert Counter(row[7] for row in rows)["caption"] == Counter(row[7] for row in rows)["visual_grounding"]
    pool = (world / "negative_sample" / "object.txt").read_text().splitlines()
    captions = (world / "negative_sample" / "all_captions.txt").read_text().splitlines()
    for row in rows:
        assert len(row) == 8 and "/train_" in row[1]
        if row[7] == "caption":
            assert row[2] in captions
            assert all(name in row[2] and name in pool for name in row[5].split("&&"))
        elif row[7] == "qa":
            assert "|!+" in row[4] and row[3]
        else:
            assert len(row[4].split(",")) == 4 and row[2]
    types = json.loads((world / "negative_sample" / "type2ans.json").read_text())
    assert types["yes/no"] == ["no", "yes"] and "other" in types and "how many" in types
    assert {row[7] for row in tsv(world, "pretrain_video")} == {"video_caption", "video_qa"}
    assert {row[7] for row in tsv(world, "pretrain_audio")} == {"audio"}


def test_vocabulary_covers_the_texts(world: Path) -> None:
    trained = Vocabulary.load(world / "vocabulary")
    for row in tsv(world, "caption_test"):
        for text in row[2].split("&&"):
            ids = trained.encode(f" {text}")
            assert trained.decode(ids) == f" {text}"
            assert len(ids) <= 30


def test_more_questions_about_each_training_picture(tmp_path: Path) -> None:
    render(tmp_path / "world", images=12, clips=8, sounds=8, questions=4)
    of_a_picture = Counter(row[1] for row in tsv(tmp_path / "world", "vqa_train"))
    assert set(of_a_picture.values()) == {4}
    asked = [(row[1], row[2]) for row in tsv(tmp_path / "world", "vqa_train")]
    assert len(set(asked)) == len(asked)
    assert set(Counter(row[1] for row in tsv(tmp_path / "world", "vqa_val")).values()) == {2}
    kinds = Counter(row[7] for row in tsv(tmp_path / "world", "pretrain_image"))
    assert kinds["qa"] == 3 * kinds["caption"]


def test_held_out_pairs_are_absent_from_base_and_present_in_new_objects(world: Path, tmp_path: Path) -> None:
    names = [f"{colour} {shape}" for colour, shape in HELD_OUT]
    for table in (world / "tables").glob("*.?sv"):
        assert not any(name in table.read_text() for name in names), table.name
    render(tmp_path / "new", variant="new_objects", vocabulary_size=0, **{**SMALL, "images": 40})
    assert not list((tmp_path / "new" / "vocabulary").iterdir())
    for item in items(tmp_path / "new"):
        if item["id"].startswith("i_"):
            things = {(t["color"], t["shape"]) for t in item["attributes"]["things"]}
            assert things & HELD_OUT
        elif item["id"].startswith("v_"):
            assert (item["attributes"]["actor"]["color"], item["attributes"]["actor"]["shape"]) in HELD_OUT


def test_new_words_shows_the_same_pictures_with_other_captions(world: Path, tmp_path: Path) -> None:
    render(tmp_path / "words", variant="new_words", **SMALL)
    ours, theirs = digests(world), digests(tmp_path / "words")
    media = [name for name in ours if name.split("/")[0] in ("images", "videos", "audio")]
    assert all(ours[name] == theirs[name] for name in media)
    for kind in ("caption_test", "video_caption_test", "audio_caption_test"):
        texts = [{t for row in tsv(w, kind) for t in row[2].split("&&")} for w in (world, tmp_path / "words")]
        assert not texts[0] & texts[1]
    # answers stay in the words of the closed list
    assert {row[3] for row in tsv(tmp_path / "words", "vqa_train")} <= {
        row[3] for row in tsv(world, "vqa_train")
    }


def test_rendering_again_replaces_but_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    sizes = {"clips": 8, "sounds": 8, "vocabulary_size": 0}
    render(tmp_path / "w", images=20, **sizes)
    render(tmp_path / "w", images=10, **sizes)
    assert len(list((tmp_path / "w" / "images").iterdir())) == 10
    (tmp_path / "w" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        render(tmp_path / "w", images=10, **sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "new_object"}, "Did you mean 'new_objects'"),
        ({"images": 3}, "images is 3"),
        ({"image_size": 16}, "image_size is 16"),
        ({"video_size": 65}, "even number"),
        ({"questions": 6}, "questions is 6"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        render(tmp_path / "w", **options)
    assert not (tmp_path / "w").exists()


def parsed(module: Any, *words: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)


def test_sample_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", "8", "--clips", "8", "--sounds", "8", "--seed", "3", "--num-bins", "50"]
    assert sample.run(parsed(sample, str(tmp_path / "w"), *words)) == 0
    assert "8 images, 8 videos, 8 audio" in capsys.readouterr().out
    assert Vocabulary.load(tmp_path / "w" / "vocabulary").num_bins == 50
    assert json.loads((tmp_path / "w" / "world.json").read_text())["seed"] == 3


def test_vocabulary_verb(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [f"{world}/tables/vqa_train.tsv:3", f"{world}/tables/matching_train.csv:text"]
    words = ["--train-on", *places, "--size", "400", "--num-codes", "16", "--out", str(tmp_path / "v")]
    assert vocabulary.run(parsed(vocabulary, *words)) == 0
    trained = Vocabulary.load(tmp_path / "v")
    assert str(len(trained)) in capsys.readouterr().out
    assert trained.num_codes == 16 and trained.mask - 4 <= 400
    assert len(trained.encode(" circle")) == 1
    with pytest.raises(ConfigError, match="TABLE:COLUMN"):
        vocabulary.run(parsed(vocabulary, "--train-on", "captions.tsv", "--out", str(tmp_path / "x")))
    with pytest.raises(ConfigError, match="at least 256"):
        vocabulary.run(parsed(vocabulary, "--train-on", *places, "--size", "9", "--out", str(tmp_path / "x")))
