"""Tables of one's own: converted, split, checked and shown, from real files."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from unival.cli import main
from unival.core.recipe import load_recipe
from unival.datatools.own.split import assign, split_table
from unival.errors import ConfigError
from unival.specs import get_spec
from unival.tables import open_table


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(20):
        size = (40, 30)
        Image.new("RGB", size, (number * 12, 80, 120)).save(folder / f"p{number}.jpg")
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_folder_with_csv_becomes_tables_vocabulary_and_recipe(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.csv"
    rows = [f'p{n % 20}.jpg,"a ""red"" thing, number {n}"' for n in range(40)]
    source.write_text(
        "\n".join(["file_name,Sentence", *rows, "gone.jpg,never seen"]) + "\n", encoding="utf-8"
    )
    out = tmp_path / "own"
    words = ["data", "convert", str(source), "--task", "caption", "--out", str(out), "--media", str(photos)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "their media are not there: 1" in said and "gone.jpg" in said
    parts = {name: lines(out / f"{name}.jsonl") for name in ("train", "val", "test")}
    assert sum(len(part) for part in parts.values()) == 40
    media = {name: {row["image"] for row in part} for name, part in parts.items()}
    assert len(media["val"]) == len(media["test"]) == 2
    assert not (
        media["train"] & media["val"] or media["train"] & media["test"] or media["val"] & media["test"]
    )
    assert (out / parts["train"][0]["image"]).is_file(), "references start from the tables' folder"
    assert parts["train"][0]["caption"].startswith('a "red" thing, number')
    recipe = load_recipe(out / "recipe.yaml")
    assert recipe.choices["task"] == "caption"
    assert Path(recipe.data["train"]) == out / "train.jsonl"
    assert Path(recipe.options["bpe_dir"], "dict.txt").is_file()


def write_clip(path: Path, shade: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("task", "registered", "network"),
    [
        ("video_caption", "video_caption", "video_encoder_name"),
        ("audio_caption", "audio_caption", "hop_size"),
    ],
)
def test_label_folders_become_captions(task: str, registered: str, network: str, tmp_path: Path) -> None:
    ending = {"video_caption": ".mp4", "audio_caption": ".wav"}[task]
    for number in range(6):
        place = tmp_path / "clips" / ("dog_bark" if number % 2 else "rain") / f"c{number}{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if task == "video_caption":
            write_clip(place, number)
        else:
            soundfile.write(place, np.sin(np.arange(16000) * (number + 1) / 9), 16000)
    out = tmp_path / "own"
    assert main(["data", "convert", str(tmp_path / "clips"), "--task", task, "--out", str(out)]) == 0
    captions = {row["caption"] for name in ("train", "val", "test") for row in lines(out / f"{name}.jsonl")}
    assert captions == {"dog bark", "rain"}
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["task"] == registered and network in recipe["model"]


def test_coco_captions_and_boxes(photos: Path, tmp_path: Path) -> None:
    content = {
        "images": [{"id": n, "file_name": f"p{n}.jpg"} for n in range(4)],
        "annotations": [
            {"id": 10 + n, "image_id": n, "caption": f"thing {n}", "category_id": 1, "bbox": [1, 2, 10, 20.5]}
            for n in range(4)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    source = tmp_path / "coco.json"
    source.write_text(json.dumps(content), encoding="utf-8")
    out = tmp_path / "boxes.jsonl"
    words = ["data", "convert", str(source), "--out", str(out), "--media", str(photos)]
    assert main([*words, "--task", "refcoco"]) == 0
    rows = lines(out)
    assert rows[0]["box"] == [1, 2, 11, 22.5] and rows[0]["text"] == "thing 0"
    table = open_table(str(out), get_spec("grounding").fields)
    assert main(["data", "validate", str(out), "--task", "refcoco"]) == 0
    assert len(table) == 4
    assert main([*words, "--task", "snli_ve"]) == 2


def test_official_vqa_pair(photos: Path, tmp_path: Path) -> None:
    questions = {"questions": [{"question_id": 7, "image_id": 3, "question": "what colour?"}]}
    answers = {
        "annotations": [{"question_id": 7, "answers": [{"answer": "red"}] * 6 + [{"answer": "pink"}] * 4}]
    }
    Image.new("RGB", (8, 8)).save(tmp_path / f"COCO_val2014_{3:012d}.jpg")
    (tmp_path / "q.json").write_text(json.dumps(questions))
    (tmp_path / "a.json").write_text(json.dumps(answers))
    out = tmp_path / "vqa.jsonl"
    words = ["data", "convert", str(tmp_path / "q.json"), "--annotations", str(tmp_path / "a.json")]
    assert main([*words, "--task", "vqa", "--out", str(out)]) == 0
    row = open_table(str(out), get_spec("vqa").fields)[0]
    assert get_spec("vqa").reference(row, None) == {"red": 1.0, "pink": pytest.approx(4 / 6)}  # type: ignore[arg-type]


def test_webdataset_samples_stay_in_their_archive(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard-000.tar", "w") as tar:
        for number in range(5):
            tar.add(photos / f"p{number}.jpg", f"{number:04d}.jpg")
            text = tmp_path / "t.txt"
            text.write_text(f"sample {number}\n", encoding="utf-8")
            tar.add(text, f"{number:04d}.txt")
    out = tmp_path / "own.jsonl"
    words = ["data", "convert", str(tmp_path / "shard-000.tar"), "--task", "caption", "--out", str(out)]
    assert main(words) == 0
    assert [row["caption"] for row in lines(out)] == [f"sample {n}" for n in range(5)]
    assert main(["data", "validate", str(out), "--task", "caption"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "picture,words\np0.jpg,hello\n",
            "no column for 'image' among picture, words; name it: --columns image=",
        ),
        ("image,words\np0.jpg,hello\n", "no column for 'caption'"),
        ("image,caption\nzzz.jpg,hello\n", "none of its 1 media files is there"),
    ],
)
def test_what_cannot_be_converted(
    text: str, message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    words = ["data", "convert", str(tmp_path / "t.csv"), "--task", "caption", "--media", str(photos)]
    assert main([*words, "--out", str(tmp_path / "own")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_validate_names_every_bad_row(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    rows = [
        {"image": str(photos / "p0.jpg"), "text": "fine", "box": [1, 1, 20, 20]},
        {"image": str(photos / "p1.jpg"), "text": "outside", "box": [50, 50, 60, 60]},
        {"image": "gone.jpg", "text": "no file", "box": [1, 1, 2, 2]},
        {"image": str(photos / "p2.jpg"), "text": "", "box": [1, 1, 2, 2]},
        {"image": str(tmp_path / "broken.jpg"), "text": "damaged", "box": [1, 1, 2, 2]},
    ]
    table = tmp_path / "boxes.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for decode in ("0", "5"):
        assert main(["data", "validate", str(table), "--task", "grounding", "--decode", decode]) == 1
        said = capsys.readouterr().out
        assert "5 rows of grounding (image), 1 usable" in said
        for line, kind in ((2, "row"), (3, "media"), (4, "row"), (5, "media")):
            assert any(f"line {line}" in text and f"  {kind}:" in text for text in said.splitlines()), said


def test_show_writes_pages(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    rows = [{"image": str(photos / f"p{n}.jpg"), "text": f"<{n}>", "box": [3, 3, 20, 20]} for n in range(9)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name in ("rows.html", "rows.png"):
        words = [
            "data",
            "show",
            str(table),
            "--task",
            "grounding",
            "--rows",
            "4",
            "--out",
            str(tmp_path / name),
        ]
        assert main(words) == 0
    page = (tmp_path / "rows.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 4 and "&lt;0&gt;" in page and "<0>" not in page
    with Image.open(tmp_path / "rows.png") as sheet:
        assert sheet.width > 400


def test_split_keeps_bytes_and_media_together(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    body = [f'm{n % 10}.jpg,"text {n}, ""quoted"""' for n in range(50)]
    path.write_text("\n".join(["image,caption", *body]) + "\n", encoding="utf-8")
    written = split_table(open_table(str(path)), tmp_path / "parts", "image", {"val": 0.2, "test": 0.1})
    assert {name: rows for name, (_, rows) in written.items()} == {"train": 35, "val": 10, "test": 5}
    found = [
        line for file, _ in written.values() for line in file.read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert sorted(found) == sorted(body)
    again = split_table(open_table(str(path)), tmp_path / "again", "image", {"val": 0.2, "test": 0.1})
    assert again["val"][0].read_bytes() == written["val"][0].read_bytes()


def test_split_by_the_size_of_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A headerless table as the reference's; the sizes are those that a reward for one size counts."""
    from unival.rewards.boxes import BoxReward

    boxes = [(0, 0, 10, 10), (5, 5, 25, 20), (0, 0, 10, 30), (0, 0, 31, 10), (1, 1, 9, 9)]
    rows = [f"{n}\tid{n}\tthe thing\t{','.join(map(str, box))}\tpic.jpg" for n, box in enumerate(boxes)]
    (tmp_path / "val.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert main(["data", "split", str(tmp_path / "val.tsv"), "--sizes", "200,300"]) == 0
    assert "val_medium.tsv: 2 rows" in capsys.readouterr().out
    small, large = (
        [int(line.split("\t")[0]) for line in (tmp_path / f"val_{size}.tsv").read_text().splitlines()]
        for size in ("small", "large")
    )
    assert (small, large) == ([0, 4], [3])
    for kind, rewarded in (({"max_area_size": 200}, small), ({"min_area_size": 300}, large)):
        reward = BoxReward(**kind)
        assert [n for n, box in enumerate(boxes) if reward.size_of(box) in reward.sizes()] == rewarded
    for bad in ("300,200", "x"):
        assert main(["data", "split", str(tmp_path / "val.tsv"), "--sizes", bad]) == 2
    (tmp_path / "val.tsv").write_text("1\ta\tthe thing\t\tpic.jpg\n", encoding="utf-8")
    assert main(["data", "split", str(tmp_path / "val.tsv"), "--sizes", "200,300"]) == 2
    assert "expected a box" in capsys.readouterr().err


def test_splits_that_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match="sum below 1"):
        assign(["a", "b"], {"val": 0.6, "test": 0.5})
    with pytest.raises(ConfigError, match="2 different media cannot be split"):
        assign(["a", "b", "a"], {"val": 0.1, "test": 0.1})


def test_index_is_built_ahead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n", encoding="utf-8")
    assert main(["data", "index", str(tmp_path / "t.tsv")]) == 0
    assert "2 lines" in capsys.readouterr().out and (tmp_path / "t.tsv.idx").is_file()
