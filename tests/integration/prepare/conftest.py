"""The command in-process, and real small media under any name."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unival.cli import main
from unival.media.loader import MediaLoader
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table
from unival.vocabulary import Vocabulary


@dataclass
class Place:
    """A data root with official files in ``official`` and the command that prepares them."""

    root: Path
    capture: Any
    vocabulary: Vocabulary

    @property
    def official(self) -> Path:
        return self.root / "official"

    @property
    def out(self) -> Path:
        return self.root / "ofa"

    def write(self, name: str, content: Any) -> Path:
        """Write an official file: pickle, JSON lines (a list for .jsonl), JSON, or text as it is."""
        path = self.official / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".p", ".pkl"):
            path.write_bytes(pickle.dumps(content, protocol=2))
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8", newline="")
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(line) + "\n" for line in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def images(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(path, "JPEG")

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run ``unival data prepare ...`` on the official files; returns (exit code, all that it printed)."""
        return self.run_plain(arguments[0], "--annotations", str(self.official), *arguments[1:])

    def run_plain(self, *arguments: str) -> tuple[int, str]:
        self.capture.readouterr()
        code = main(["data", "prepare", *arguments])
        captured = self.capture.readouterr()
        return code, captured.out + captured.err

    def report(self, corpus: str) -> dict[str, Any]:
        return json.loads((self.out / "reports" / f"{corpus}.json").read_text(encoding="utf-8"))

    def dropped(self, corpus: str) -> dict[str, int]:
        """Reason -> count, without the split."""
        return {entry["reason"]: entry["count"] for entry in self.report(corpus)["dropped"]}

    def rows(self, name: str, layout: str, selected_cols: str | None = None) -> list[dict[str, Any]]:
        """Read a table with the project's own reader."""
        table = open_table(str(self.out / name), layout=layout, header=False, selected_cols=selected_cols)
        return [{column: row[column] for column in table.columns} for row in table]

    def examples(self, name: str, task: str, modality: str, training: bool = True) -> list[Any]:
        """Prepare every row as training does, media included."""
        spec, options = get_spec(task, modality), SpecOptions(patch_image_size=32, max_image_size=64)
        table = open_table(str(self.out / name), fields=spec.fields, layout=spec.layout)
        loader = MediaLoader(self.root)
        return [
            example
            for row in table
            for example in spec.examples(row, loader, options, self.vocabulary, None, training)
        ]


@pytest.fixture(scope="session")
def small_vocabulary() -> Vocabulary:
    return Vocabulary.train(["a dog on the grass"], 300, 10, 1000)


@pytest.fixture
def place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small_vocabulary: Vocabulary,
) -> Place:
    monkeypatch.setenv("UNIVAL_DATA", str(tmp_path))
    (tmp_path / "official").mkdir()
    return Place(tmp_path, capsys, small_vocabulary)


@pytest.fixture
def raises_data_error(place: Place) -> Callable[..., str]:
    """Run the command, which must refuse; returns its message. Nothing may be written."""

    def run(*arguments: str) -> str:
        code, text = place.run(*arguments)
        assert code == 2 and text.startswith("error: "), text
        assert not [p for p in place.root.rglob("*") if p.is_file() and "ofa" in p.parts]
        return text

    return run
