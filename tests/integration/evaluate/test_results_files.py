"""Files for EvalAI, written without references; METEOR and SPICE by way of the verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unival.cli import main

FAST = ("--device", "cpu", "--eval-args", '{"beam": 1, "max_len_b": 6, "min_len": 2}', "--mode", "open")


@pytest.fixture(scope="module")
def pictures(world: Path) -> list[str]:
    return [f"images/{path.name}" for path in sorted((world / "images").iterdir())[:3]]


def evaluated(
    checkpoint: Path, world: Path, folder: Path, rows: list[dict[str, Any]], *words: str
) -> tuple[int, Path]:
    table, file = folder / "t.jsonl", folder / "file.json"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["--results", str(file), "--out", str(folder / "o"), "--image-dir", str(world), *FAST, *words]
    return main(["evaluate", str(checkpoint), str(table), *asked]), file


def test_vqa(
    checkpoint: Path, world: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": str(k), "image": p, "question": "what is it?"}
        for k, p in zip((90, 12, 5), pictures, strict=True)
    ]
    code, file = evaluated(checkpoint, world, tmp_path, rows, "--task", "vqa_gen")
    printed = capsys.readouterr().out
    assert code == 0 and "predictions only" in printed and f"3 predictions for a server: {file}" in printed
    content = json.loads(file.read_text())
    assert [list(entry) for entry in content] == [["question_id", "answer"]] * 3
    said = {
        int(r["id"]): r["prediction"]
        for r in map(json.loads, (tmp_path / "o/predictions.jsonl").read_text().splitlines())
    }
    assert [(e["question_id"], e["answer"]) for e in content] == sorted(said.items())


def test_vizwiz_and_captions(checkpoint: Path, world: Path, pictures: list[str], tmp_path: Path) -> None:
    rows = [{"id": f"VizWiz_test_{k}.jpg", "image": p, "question": "what?"} for k, p in enumerate(pictures)]
    code, file = evaluated(checkpoint, world, tmp_path, rows, "--task", "vqa_gen")
    assert code == 0
    assert [entry["image"] for entry in json.loads(file.read_text())] == [row["id"] for row in rows]
    rows = [{"id": str(7 * k), "image": p} for k, p in enumerate(pictures)]
    code, file = evaluated(checkpoint, world, tmp_path, rows, "--restart")
    content = json.loads(file.read_text())
    assert (
        code == 0 and [e["image_id"] for e in content] == [0, 7, 14] and all("caption" in e for e in content)
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "4"}, "ids that stand twice in the table: '4'"),
        ({"id": None}, "--results needs ids, and 3 of 3 rows have none"),
    ],
)
def test_what_a_server_would_refuse(
    changes: dict[str, Any], said: str, checkpoint: Path, world: Path, pictures: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = [{"image": p, "question": "what?", **changes} for p in pictures]
    code, file = evaluated(checkpoint, world, tmp_path, rows, "--task", "vqa_gen")
    assert code == 2 and said in capsys.readouterr().err
    assert not file.exists() and not (tmp_path / "o/parts").exists()


def test_spice_by_way_of_the_verb(checkpoint: Path, world: Path, pictures: list[str], tmp_path: Path) -> None:
    """A program that stands where java would, and answers as SPICE does."""
    program = tmp_path / "java"
    program.write_text(
        "#!/usr/bin/env python3\n"
        "import json, sys\n"
        "if '-version' in sys.argv:\n    sys.exit()\n"
        "items = json.load(open('in.json'))\n"
        "assert sys.argv[sys.argv.index('-cp') + 1] == '" + str(tmp_path) + "/*'\n"
        "scores = [{'image_id': i['image_id'], 'scores': {'All': {'f': 0.25}}} for i in items]\n"
        "json.dump(scores, open('out.json', 'w'))\n"
    )
    program.chmod(0o755)
    for name in ("spice-1.0.jar", "stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (tmp_path / name).touch()
    rows = [{"id": str(k), "image": p, "caption": "a dog"} for k, p in enumerate(pictures)]
    words = ["--metrics", "bleu,spice", "--java", str(program), "--spice-jars", str(tmp_path)]
    code, _ = evaluated(checkpoint, world, tmp_path, rows, *words)
    result = json.loads((tmp_path / "o/result.json").read_text())
    assert code == 0 and result["metrics"]["spice"] == 0.25
    assert str(tmp_path) not in json.dumps(result["scoring"])
