"""The scripts of docs/examples run as they stand, with a tiny model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "docs/examples"
FOLDERS = {"image": "images", "video": "videos", "audio": "audio"}


@pytest.mark.parametrize("modality", list(FOLDERS))
def test_example(
    modality: str, checkpoint: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    media = sorted(str(path) for path in (world / FOLDERS[modality]).iterdir())[
        : 2 if modality == "video" else 1
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example", str(checkpoint), *media])
    runpy.run_path(str(EXAMPLES / f"{modality}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert len(said.splitlines()) >= 3
    assert (tmp_path / "box.png").is_file() == (modality == "image")
