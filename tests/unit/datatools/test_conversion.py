"""Conversion of what people have: nothing is dropped, guessed or trained on without a word."""

from __future__ import annotations

import io
import json
import math
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unival.cli import main
from unival.core.paths import join_paths, split_paths
from unival.core.recipe import load_recipe, to_arguments
from unival.datatools.own.sources.coco import _Pictures
from unival.media import MediaLoader
from unival.tables import open_table

JPEG = io.BytesIO()
Image.new("RGB", (40, 30), "red").save(JPEG, "jpeg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"p{number}.jpg").write_bytes(JPEG.getvalue())
    return folder


Convert = Callable[..., tuple[list[dict[str, Any]], str]]


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Convert:
    """Convert a source into one table: (its rows, what was said); an error is a pair of no rows and its line."""

    def run(source: Path, task: str, *words: str) -> tuple[list[dict[str, Any]], str]:
        out = tmp_path / "out.jsonl"
        out.unlink(missing_ok=True)
        code = main(["data", "convert", str(source), "--task", task, "--out", str(out), *words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err and code in (0, 2)
        if code:
            assert said.err.count("\n") == 1
            return [], said.err
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        for row in rows:
            MediaLoader(tmp_path).image(row["image"])
        return rows, said.out

    return run


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines_are_converted_as_csv_is(photos: Path, convert: Convert) -> None:
    """Every JSONL file was refused: it has no header line."""
    rows = [{"image": f"p{n}.jpg", "captions": ["a", f"b {n}"]} for n in range(6)]
    jsonl(photos / "captions.jsonl", rows)
    for source in (photos / "captions.jsonl", photos):
        found, said = convert(source, "caption")
        assert [row["caption"] for row in found] == [
            ["a", f"b {n}"] for n in range(6)
        ] and "left out" not in said
    late = [{"file": "p0.jpg", "question": "a?"}, {"file": "p1.jpg", "question": "b?", "answer": "red"}]
    official = {"file": "p2.jpg", "question": "c?", "answer": [{"answer": "red", "answer_id": 1}] * 2}
    (photos / "captions.jsonl").unlink()
    found, said = convert(jsonl(photos / "q.jsonl", [*late, official]), "vqa")
    assert [row["answer"] for row in found] == ["red", ["red", "red"]]
    assert "without a value for 'answer': 1; first:" in said and "q.jsonl, line 1" in said


def test_rows_that_cannot_be_learnt_are_left_out_and_counted(photos: Path, convert: Convert) -> None:
    bad = [math.nan, True, {"en": "a"}, [{"raw": "a"}], "", " ", []]
    rows = [{"image": "p0.jpg", "caption": value} for value in bad]
    rows += [{"image": "p1.jpg", "caption": None}, {"image": "p2.jpg", "caption": "a red square"}]
    rows += [
        {"image": value, "caption": "a"} for value in (None, math.nan, ["p1.jpg"], {"path": "p1.jpg"}, "")
    ]
    rows += [{"image": "gone.jpg", "caption": "a"}, {"image": "https://e.org/a.jpg", "caption": "a"}]
    found, said = convert(jsonl(photos / "t.jsonl", rows), "caption")
    assert [row["caption"] for row in found] == ["a red square"]
    assert "they cannot be used: 12" in said and "t.jsonl, line 1, column 'caption'" in said
    assert "their media are not there: 2" in said and "gone.jpg" in said and "address of the web" in said
    assert "without a value for 'caption': 1" in said
    found, said = convert(jsonl(photos / "t.jsonl", rows[:7]), "caption")
    assert not found and "none of its rows can be used" in said and "line 1, column 'caption'" in said


def test_rows_without_any_target_can_be_predicted(photos: Path, convert: Convert) -> None:
    rows = [{"image": f"p{n}.jpg", "question": "what?"} for n in range(3)]
    found, said = convert(jsonl(photos / "t.jsonl", rows), "vqa")
    assert len(found) == 3 and "can be predicted, neither trained on nor scored" in said


def test_boxes(photos: Path, convert: Convert) -> None:
    boxes = [[1, 2, 20, 20], [0.1, 0.1, 0.4, 0.5], [1, 2, 41.5, 20], [5, 5, 5, 9], [1, 2, 3], math.nan]
    rows = [{"image": "p0.jpg", "text": "a", "box": box} for box in boxes]
    found, said = convert(jsonl(photos / "t.jsonl", rows), "grounding")
    assert [row["box"] for row in found] == [[1, 2, 20, 20]]
    assert "they cannot be used: 4" in said and "without a value for 'box': 1" in said and "shares" in said
    found, said = convert(photos / "t.jsonl", "grounding", "--box-format", "xywh")
    assert [row["box"] for row in found] == [[1, 2, 21, 22], [5, 5, 10, 14]]


def test_hidden_files_are_no_data(photos: Path, convert: Convert) -> None:
    """Folders of programs became labels, macOS's "._" files rows and second tables."""
    labels = photos.parent / "labels"
    for place in ("red_square/a.jpg", "red_square/._a.jpg", ".ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg",
                  "red_square/b.heic", "loose.jpg", "red_square/deep/c.jpg"):  # fmt: skip
        (labels / place).parent.mkdir(parents=True, exist_ok=True)
        (labels / place).write_bytes(JPEG.getvalue())
    found, said = convert(labels, "caption")
    assert [row["caption"] for row in found] == ["red square"]
    assert "hidden files: 3" in said and "files that are no image" in said and "b.heic" in said
    assert "do not stand in a folder named by their label: 2" in said
    (photos / "captions.csv").write_text("image,caption\np0.jpg,a\n")
    (photos / "._captions.csv").write_bytes(b"\0\5\x16\7")
    assert len(convert(photos, "caption")[0]) == 1


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


PICTURE = JPEG.getvalue()
ARCHIVES: dict[str, tuple[dict[str, bytes], list[tuple[str, str]], str]] = {
    "names with dots": (
        {f"song {n}.{k}{end}": data for n in range(2) for k in range(2)
         for end, data in ((".jpg", PICTURE), (".txt", f"{n} {k}".encode()))},
        [(f"song {n}.{k}.jpg", f"{n} {k}") for n in range(2) for k in range(2)],
        "",
    ),
    "folder with a dot": ({"./train.v1/0.jpg": PICTURE, "./train.v1/0.txt": b"a"}, [("train.v1/0.jpg", "a")], ""),
    "several pictures": (
        {"x.left.jpg": PICTURE, "x.right.jpg": PICTURE, "x.txt": b"a", "y.jpg": PICTURE, "y.seg.png": PICTURE,
         "y.txt": b"b"},
        [("x.left.jpg", "a"), ("y.jpg", "b")],
        "media beside the first of their sample: 2; first: t.tar/x.right.jpg",
    ),
    "json": (
        {"0.jpg": PICTURE, "0.json": b'{"text": "a"}', "1.jpg": PICTURE, "1.json": b'{"caption": "b", "text": "z"}'},
        [("0.jpg", "a"), ("1.jpg", "b")],
        "",
    ),
    "missing parts": (
        {"0.jpg": PICTURE, "0.txt": b"a", "1.jpg": PICTURE, "2.jpg": PICTURE, "2.txt": b" ", "3.txt": b"c",
         "4.jpg": PICTURE, "4.json": b"{", "5.jpg": PICTURE, "5.json": b'{"caption": NaN}'},
        [("0.jpg", "a")],
        "without a value for 'caption': 1",
    ),
    "not UTF-8": ({"0.jpg": PICTURE, "0.txt": b"a", "1.jpg": PICTURE, "1.txt": b"caf\xe9"}, [("0.jpg", "a")],
                  "t.tar/1.txt: invalid UTF-8 at byte 4"),
    "hidden": ({"0.jpg": PICTURE, "0.txt": b"a", "._0.jpg": b"x", "__MACOSX/._0.txt": b"x", "a/.x/1.jpg": b"x"},
               [("0.jpg", "a")], "hidden files: 3; first: ._0.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name: str, tmp_path: Path, convert: Convert) -> None:
    files, expected, remark = ARCHIVES[name]
    found, said = convert(archive(tmp_path / "t.tar", files), "caption")
    assert [(row["image"].removeprefix("t.tar/"), row["caption"]) for row in found] == expected
    assert remark in said if remark else "left out" not in said, said


COCO = {
    "images": [{"id": n, "file_name": f"p{n}.jpg"} for n in range(4)],
    "annotations": [{"id": n, "image_id": n, "caption": f"c {n}", "bbox": [1, 1, 9, 9]} for n in range(4)],
}


def changed(what: str, number: int, **values: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(COCO))
    content[what][number] |= values
    return {**content, what: [{k: v for k, v in item.items() if v != "-"} for item in content[what]]}


COCO_CASES = {
    "no file name": ("caption", changed("images", 1, file_name="-"), 3, "image_id 1 is not among the 3"),
    "unknown image": ("caption", changed("annotations", 1, image_id=999), 3, "annotation 2: its image_id 999"),
    "no image": ("caption", changed("annotations", 1, image_id="-"), 3, "annotation 2: there is no 'image_id'"),
    "text ids": ("caption", changed("images", 1, id="1"), 4, ""),
    "null caption": ("caption", changed("annotations", 1, caption=None), 3, "without a value for 'caption': 1"),
    "blank caption": ("caption", changed("annotations", 1, caption=" "), 3, "they cannot be used: 1"),
    "no text": ("grounding", changed("annotations", 1, caption="-"), 3, "there is no 'category_id'"),
    "empty box": ("grounding", changed("annotations", 1, bbox=[]), 3, "expected 'bbox' as four numbers"),
    "null box": ("grounding", changed("annotations", 1, bbox=None), 3, "got None"),
    "text box": ("grounding", changed("annotations", 1, bbox="a"), 3, "got 'a'"),
    "box of no area": ("grounding", changed("annotations", 1, bbox=[1, 1, 0, 3]), 3, "x0 < x1"),
    "box outside": ("grounding", changed("annotations", 1, bbox=[30, 1, 30, 3]), 3, "lies outside its image"),
    "no names at all": ("caption", {**COCO, "images": [{"id": n} for n in range(4)]}, 0,
                        "images, entry 1: there is no 'file_name'"),
    "no list": ("caption", {**COCO, "images": {}}, 0, "'images' is missing"),
    "list of numbers": ("caption", {**COCO, "annotations": [3]}, 0, "entry 1: expected an object, got '3'"),
    "a list": ("caption", [COCO], 0, "expected a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("name", COCO_CASES)
def test_coco_files(name: str, photos: Path, convert: Convert) -> None:
    """Unknown images and absent keys were tracebacks, unusable rows stopped the training later."""
    task, content, count, message = COCO_CASES[name]
    (photos / "c.json").write_text(json.dumps(content))
    found, said = convert(photos / "c.json", task)
    assert len(found) == count and message in said, said
    assert ("left out" in said) == (0 < count < 4)


def test_a_folder_of_pictures_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (3, 12):
        (tmp_path / f"COCO_val2014_{number:012d}.jpg").touch()
    read: list[Any] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: read.append(folder) or listdir(folder))
    pictures = _Pictures(tmp_path)
    names = [pictures.name(str(number)) for number in (3, 12, 5) * 5]
    assert names[:3] == ["COCO_val2014_000000000003.jpg", "COCO_val2014_000000000012.jpg", "5.jpg"]
    assert read == [tmp_path]


def test_ids_that_repeat_over_media(photos: Path, convert: Convert) -> None:
    rows = [{"id": n % 2, "image": f"p{n}.jpg", "caption": f"c {n}"} for n in range(4)]
    found, said = convert(jsonl(photos / "t.jsonl", rows), "caption")
    assert (
        len(found) == 4
        and not any("id" in row for row in found)
        and "ids repeat over different media" in said
    )


def test_links_and_marks_in_paths(photos: Path, tmp_path: Path) -> None:
    """The recipe and the media were looked for beside the link instead of beside its target."""
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    link = tmp_path / "linked"
    link.symlink_to(tmp_path / "disk" / "deep")
    (photos / "t.csv").write_text("image,caption\n" + "".join(f"p{n}.jpg,a {n}\n" for n in range(6)))
    words = ["data", "convert", str(photos), "--task", "caption", "--vocabulary-size", "300"]
    for out in (link / "own", tmp_path / "with, comma {1..2}"):
        assert main([*words, "--out", str(out)]) == 0
        recipe = load_recipe(out / "recipe.yaml")
        recipe.options = {"save_dir": str(tmp_path / "run, 1")}
        for path in split_paths(to_arguments(recipe, {"--save-dir"})[0]):
            table = open_table(path)
            assert table.loader().image(table[0]["image"]).size == (40, 30)
    assert main([*words, "--out", str(tmp_path / "${X}")]) == 2


def test_paths_joined_by_commas() -> None:
    paths = ["a.tsv", "with, comma/b.tsv", "c,d,.tsv"]
    assert split_paths(join_paths(paths)) == paths and split_paths("a,b,,") == ["a", "b"]


def test_semicolons_are_named(photos: Path, convert: Convert) -> None:
    (photos / "t.csv").write_text("image;caption\np0.jpg;a\n")
    assert "separated by semicolons: save it with commas" in convert(photos / "t.csv", "caption")[1]
