"""What a task says of itself, which tables of other folders once said by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unival.cli.predict import _on_files
from unival.datatools.own.convert import convert
from unival.datatools.own.sources import Request
from unival.errors import ConfigError
from unival.metrics import io
from unival.specs import SPECS, Field, get_spec
from unival.specs.caption import CaptionSpec
from unival.specs.inputs import media_field
from unival.tables import Row
from unival.vocabulary import Vocabulary


class LabelsSpec(CaptionSpec):
    """Classification: a medium and one label."""

    name = "labels"

    @property
    def fields(self) -> tuple[Field, ...]:
        return media_field(self.modality), Field("kind", True, "what it is", target=True)

    def reference(self, row, options):
        return row.get("kind")

    def examples(self, row, *args, **options):
        named = {name: row[name] for name in row} | {"caption": row.get("kind")}
        return super().examples(Row(named, row.path, row.line), *args, **options)


def test_what_is_asked_and_answered() -> None:
    said = {
        name: ([f.name for f in get_spec(name).asked], getattr(get_spec(name).answer, "name", None))
        for name in SPECS
    }
    assert said == {
        "caption": ([], "caption"),
        "vqa": (["question"], "answer"),
        "grounding": (["text"], "box"),
        "grounded_caption": (["box"], "text"),
        "matching": (["text"], "label"),
        "verification": (["question", "answer"], "label"),
        "entailment": (["hypothesis"], "label"),
        "image_gen": (["text"], "codes"),
        "pretrain": ([], None),
        "infilling": ([], "text"),
    }
    assert [name for name in SPECS if _on_files(name)] == [
        *("caption", "vqa", "grounding", "grounded_caption", "matching", "entailment")
    ]


def test_files_and_methods_that_tasks_name_exist() -> None:
    from unival.predict.predictor import Predictor

    for spec in SPECS.values():
        assert spec.official is None or spec.official in io.FORMATS
        assert spec.offer is None or not spec.offer.method or hasattr(Predictor, spec.offer.method)
        assert all(hasattr(spec.options_class(), name) for name in spec.reference_options)


def test_folders_named_by_a_target_of_another_name(tmp_path: Path) -> None:
    """Only the task called caption could be read from folders, and only six field names gave words."""
    from PIL import Image

    for number in range(12):
        folder = tmp_path / "photos" / ("red_zeppelins", "blue_zeppelins")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    done = convert(
        Request(tmp_path / "photos", LabelsSpec()),
        tmp_path / "own",
        {"val": 0.2, "test": 0.2},
        vocabulary_size=300,
    )
    rows = [json.loads(line) for line in done.tables["train"][0].read_text(encoding="utf-8").splitlines()]
    assert {row["kind"] for row in rows} == {"red zeppelins", "blue zeppelins"}
    assert done.vocabulary is not None
    vocabulary = Vocabulary.load(done.vocabulary)
    assert len(vocabulary.encode(" zeppelins")) < len(vocabulary.encode(" snorkelig"))
    with pytest.raises(ConfigError, match="task 'vqa' needs one with image, question"):
        convert(Request(tmp_path / "photos", get_spec("vqa")), tmp_path / "no", {})
