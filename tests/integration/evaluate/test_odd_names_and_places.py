"""Predicting and evaluating with names, texts and places that are not as usual."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from unival.cli import main

FAST = ["--eval-args", '{"beam": 1, "max_len_b": 3}']


@pytest.fixture
def photo(world: Path) -> Path:
    return next((world / "images").glob("test_*.jpg"))


def test_names_that_are_not_utf8_are_predicted(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(photo, tmp_path / "photos" / "good.jpg")
    try:
        shutil.copy(photo, os.fsencode(tmp_path / "photos") + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes no such names")
    out = tmp_path / "p.jsonl"
    assert main(["predict", str(checkpoint), str(tmp_path / "photos"), "--out", str(out), *FAST]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [os.path.exists(line["image"]) for line in lines] == [True, True]


def test_half_an_emoji_is_evaluated(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    rows = [{"id": f"half \ude00 {k}", "image": str(photo), "caption": "a \ud83d star"} for k in range(2)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "evaluate",
        str(checkpoint),
        str(table),
        "--task",
        "caption",
        "--out",
        str(tmp_path / "out"),
        *FAST,
    ]
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["n"] >= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device files")
def test_predictions_go_to_a_device(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        null.write_text("x")
    except OSError as error:
        pytest.skip(f"device files cannot be used here: {error}")
    assert main(["predict", str(checkpoint), str(photo), "--out", str(null), *FAST]) == 0
    assert stat.S_ISCHR(null.lstat().st_mode) and [path.name for path in tmp_path.iterdir()] == ["null"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--eval-args", '{"beam": "5"}'], "generation setting beam"),
        (["--eval-args", '{"sampling": "false"}'], "generation setting sampling"),
        (["--device", "gpu"], "device 'gpu' is not known"),
        (["--out", "FOLDER"], "it is a folder"),
        (["--out", "FOLDER/file/below.jsonl"], "cannot write"),
    ],
)
def test_refusals_leave_nothing(
    words: list[str],
    said: str,
    checkpoint: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("x")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "p.jsonl")]
    assert main(["predict", str(checkpoint), str(photo), *out, *words]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
