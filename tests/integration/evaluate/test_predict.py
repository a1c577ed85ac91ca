"""``unival predict``: files, folders and tables to JSON lines; going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.forks import ROOT, forks
from unival.cli import main

FAST = ["--batch-size", "4", "--eval-args", '{"beam": 2, "max_len_b": 6}']


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def folder(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("album")
    for number, image in enumerate(sorted((world / "images").iterdir())[:10]):
        os.link(image, place / f"{number}{image.suffix}")
    (place / "broken.png").write_bytes(b"not a picture")
    (place / "notes.txt").write_text("no medium", encoding="utf-8")
    return place


def test_folder_is_captioned_and_broken_files_are_named(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions.jsonl"
    assert main(["predict", str(checkpoint), str(folder), "--out", str(out), *FAST]) == 1
    found = lines(out)
    assert len(found) == 11 and sum("caption" in line for line in found) == 10
    bad = next(line for line in found if "error" in line)
    assert bad["image"].endswith("broken.png") and "caption" not in bad
    assert all(Path(line["image"]).is_file() and line["score"] <= 0 for line in found if "caption" in line)
    assert "10 predictions" in capsys.readouterr().out
    assert not (tmp_path / "captions.jsonl.run").exists()

    alone = tmp_path / "one.jsonl"
    assert main(["predict", str(checkpoint), str(folder / "[3].*"), "--out", str(alone), *FAST]) == 0
    (single,) = lines(alone)
    same = next(line for line in found if line["image"] == single["image"])
    assert same["caption"] == single["caption"]


def test_questions_about_files_and_rows(checkpoint: Path, world: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    words = ["predict", str(checkpoint), str(folder / "1.*"), "--task", "vqa", "--answers", "red,blue"]
    assert main([*words, "--question", "what colour?", "--out", str(out), *FAST]) == 0
    (line,) = lines(out)
    assert line["question"] == "what colour?" and line["answer"] in ("red", "blue")

    table = tmp_path / "boxes.jsonl"
    rows = [
        {"id": f"r{n}", "image": str(p), "text": "the circle"}
        for n, p in enumerate(sorted(folder.glob("?.*")))
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    boxes = tmp_path / "boxes_out.jsonl"
    given = ["predict", str(checkpoint), str(table), "--task", "refcoco", "--out", str(boxes)]
    assert main([*given, "--batch-size", "4"]) == 0, "a table without targets is predicted"
    assert [line["id"] for line in lines(boxes)] == [row["id"] for row in rows]
    assert all(line["text"] == "the circle" and len(line["box"]) == 4 for line in lines(boxes))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere/*.jpg"], "no image file there"),
        (["{folder}", "--task", "vqa"], "needs --text"),
        (["{folder}", "--text", "what?"], "takes no --text"),
        (["{folder}", "--task", "capton"], "Did you mean 'caption'"),
    ],
)
def test_what_cannot_be_predicted(
    words: list[str], message: str, checkpoint: Path, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [word.format(folder=folder) for word in words]
    assert main(["predict", str(checkpoint), *given, "--out", str(tmp_path / "p.jsonl"), *FAST]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_killed_run_goes_on(checkpoint: Path, world: Path, tmp_path: Path) -> None:
    words = ["predict", str(checkpoint), str(world / "images" / "test_000[0-4]*"), "--batch-size", "2"]
    whole, broken_off = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    assert main([*words, "--out", str(whole), *FAST[2:]]) == 0
    with open(os.devnull, "r+b") as none:
        argv = [*words, "--out", str(broken_off), *FAST[2:]]
        process = forks().start(argv, (none.fileno(),) * 3, dict(os.environ), ROOT)
    part = tmp_path / "again.jsonl.run" / "parts" / "0-of-1.jsonl"
    limit = time.monotonic() + 120
    while (not part.exists() or part.read_bytes().count(b"\n") < 20) and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not broken_off.exists()
    before = part.read_bytes()
    assert before.count(b"\n") >= 20
    assert main([*words, "--out", str(broken_off), *FAST[2:]]) == 0
    assert broken_off.read_bytes() == whole.read_bytes()


def test_names_and_folders_as_they_come(
    checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name without ending was taken for base64, linked folders were not seen, other formats left out in silence."""
    picture = next(folder.glob("1.*")).read_bytes()
    album = tmp_path / "album"
    for name in ("noext", "deep/a.png", "b.heic", "._c.png", "d.txt"):
        (album / name).parent.mkdir(parents=True, exist_ok=True)
        (album / name).write_bytes(picture)
    with open(os.path.join(os.fsencode(album), b"caf\xe9.png"), "wb") as file:
        file.write(picture)
    (album / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "e.png").write_bytes(picture)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "p.jsonl"
    words = ["predict", str(checkpoint), "album", "album/noext", "--out", str(out), *FAST]
    assert main(words) == 0
    found = lines(out)
    names = [os.path.relpath(line["image"], album) for line in found]
    assert names == ["caf\udce9.png", "deep/a.png", "linked/e.png", "noext"]
    assert len({line["caption"] for line in found}) == 1
    assert "1 .heic" in (said := capsys.readouterr().err) and "1 hidden" in said and "1 no ending" in said
    assert main(["predict", str(checkpoint), "album/absent/x.png", "--out", str(out)]) == 2
    assert "its folder 'album/absent' does not exist" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.heic").touch()
    assert main(["predict", str(checkpoint), "none", "--out", str(out)]) == 2
    assert "it holds 1 .heic" in capsys.readouterr().err
