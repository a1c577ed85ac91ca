"""Rows of one id that are about different media: refused where ids join rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unival.cli import main
from unival.errors import DataError
from unival.evaluate.items import gather
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table


def gathered(folder: Path, task: str, rows: list[dict[str, Any]]) -> list[Any]:
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return gather(get_spec(task), open_table(str(folder / "t.jsonl")), SpecOptions())


def test_one_id_over_two_media_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two exports joined: half the pictures were predicted, against captions of two pictures."""
    for n in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{n}.png")
    rows = [{"id": n % 2, "image": f"{n}.png", "caption": f"c {n}"} for n in range(4)]
    with pytest.raises(
        DataError,
        match=r"t\.jsonl, line 3, column 'id': id '0' stands here and in .*line 1 with another image",
    ):
        gathered(tmp_path, "caption", rows)
    assert main(["data", "validate", str(tmp_path / "t.jsonl"), "--task", "caption"]) == 1
    assert "2 usable" in (said := capsys.readouterr().out) and "line 3, column 'id'" in said
    boxes = [{"id": "a", "image": "0.png", "box": [0, 0, n, 2], "text": "t"} for n in (2, 3)]
    with pytest.raises(DataError, match="with another box"):
        gathered(tmp_path, "grounded_caption", boxes)


@pytest.mark.parametrize(
    ("task", "rows", "items"),
    [
        ("caption", [{"id": "a", "image": name, "caption": "c"} for name in ("0.png", "./0.png", "x/../0.png")], 1),
        ("caption", [{"image": f"{n}.png", "caption": "c"} for n in (0, 0, 1)], 2),
        ("caption", [{"id": "a", "image": "AAAA", "caption": c} for c in "cd"], 1),
        ("caption", [{"id": 7, "image": f"t.parquet/{n}/image", "caption": "c"} for n in range(2)], 1),
        ("vqa", [{"id": "a", "image": f"{n}.png", "question": "q?", "answer": "b"} for n in range(2)], 2),
    ],
)  # fmt: skip
def test_ids_that_may_repeat(task: str, rows: list[dict[str, Any]], items: int, tmp_path: Path) -> None:
    assert len(gathered(tmp_path, task, rows)) == items
