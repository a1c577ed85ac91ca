"""``unival score`` on saved files, and the formats it reads and writes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from unival.cli import score
from unival.errors import ConfigError, DataError
from unival.metrics import io

COCO = {
    "images": [{"id": 1}, {"id": 2}],
    "annotations": [
        {"image_id": 1, "id": 5, "caption": "A dog runs."},
        {"image_id": 2, "id": 6, "caption": "Two cats."},
        {"image_id": 1, "id": 7, "caption": "The dog is running."},
    ],
}
RESULTS = [{"image_id": 1, "caption": "a dog runs"}, {"image_id": 2, "caption": "cats"}]


def _write(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    score.add_arguments(parser)
    return score.run(parser.parse_args(list(arguments)))


def test_coco_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, references = _write(tmp_path / "p.json", RESULTS), _write(tmp_path / "r.json", COCO)
    out, results = tmp_path / "sub" / "score.json", tmp_path / "evalai.json"
    assert (
        _run(
            predictions,
            references,
            "--task",
            "caption",
            "--json",
            "--out",
            str(out),
            "--results",
            str(results),
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["CIDEr"] > 0 and printed["coverage"] == 1.0 and printed["tokenizer"] == "ptb"
    assert len(printed["data"]["p.json"]) == 64
    assert set(json.loads(out.read_text())["per_item"]) == {"1", "2"}
    assert json.loads(results.read_text()) == RESULTS
    assert _run(predictions, references, "--task", "caption") == 0
    assert "CIDEr" in capsys.readouterr().out


def test_jsonl_and_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(json.dumps({"id": i, "prediction": "yes", "score": -1.0}) for i in (1, 2)) + "\n"
    predictions = _write(tmp_path / "p.jsonl", lines)
    references = _write(tmp_path / "r.tsv", "id\tlabel\n1\tyes\n2\tno\n3\tyes\n")
    with pytest.raises(DataError, match="ids are numbers"):
        _run(predictions, references, "--task", "entailment")
    with pytest.raises(DataError, match="no prediction: 3"):
        _run(predictions, references, "--task", "entailment", "--ids", "int")
    _run(predictions, references, "--task", "entailment", "--ids", "int", "--missing", "zero", "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["accuracy"] == pytest.approx(1 / 3) and printed["coverage"] == pytest.approx(
        2 / 3
    )
    _run(predictions, references, "--task", "entailment", "--ids", "int", "--missing", "ignore", "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["accuracy"] == 0.5 and printed["coverage"] == pytest.approx(2 / 3)


def test_vqa_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    humans = [{"answer": "red", "answer_id": i} for i in range(1, 10)] + [
        {"answer": "The Red.", "answer_id": 10}
    ]
    row = {"question_id": 7, "answer_type": "other", "question_type": "what", "answers": humans}
    predictions = _write(tmp_path / "p.json", [{"question_id": 7, "answer": "Red"}])
    _run(predictions, _write(tmp_path / "r.json", {"annotations": [row]}), "--task", "vqa", "--json")
    printed = json.loads(capsys.readouterr().out)["scores"]
    assert printed == {"accuracy": 1.0, "answer_type/other": 1.0, "question_type/what": 1.0}
    soft = _write(tmp_path / "soft.jsonl", {"question_id": 7, "answer": "0.6|!+Red&&1.0|!+red"})
    _run(predictions, soft, "--task", "vqa", "--protocol", "unival", "--json")
    assert json.loads(capsys.readouterr().out)["scores"] == {"accuracy": 0.6}
    with pytest.raises(ConfigError, match="confidences"):
        _run(predictions, str(tmp_path / "r.json"), "--task", "vqa", "--protocol", "unival")


def test_grounding_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = _write(tmp_path / "p.json", [{"uniq_id": "a", "box": [0, 0, 10, 10]}])
    references = _write(tmp_path / "r.csv", 'uniq_id,region_coord\na,"0,0,10,6"\n')
    _run(
        predictions,
        references,
        "--task",
        "grounding",
        "--thresholds",
        "0.5,0.7",
        "--areas",
        "30,100",
        "--json",
    )
    printed = json.loads(capsys.readouterr().out)["scores"]
    assert printed["acc@0.5"] == 1.0 and printed["acc@0.7"] == 0.0 and printed["count/medium"] == 1.0
    for option, value in (("--areas", "1,2,3"), ("--areas", "x"), ("--thresholds", "half")):
        with pytest.raises(ConfigError, match=option):
            _run(predictions, references, "--task", "grounding", option, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{broken", "is not JSON"),
        ('{"id": 1, "caption": "a"}\n{"id": 2, "capt', r"line 2: is not JSON"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]', r"predicted twice: \[1\]"),
        ('[{"image_id": 1, "text": "a"}]', "no prediction"),
        ('[{"caption": "a"}]', "no id"),
        ('[{"image_id": 1.5, "caption": "a"}]', "neither a number nor a string"),
        ('["a"]', "no object"),
        ("5", "neither a list"),
    ],
)
def test_bad_prediction_files(tmp_path: Path, text: str, message: str) -> None:
    path = _write(tmp_path / "p.json", text)
    with pytest.raises(DataError, match=message):
        io.read_predictions(path, "caption")
    with pytest.raises(DataError, match="cannot be read"):
        io.read_predictions(tmp_path / "absent.json", "caption")
    (tmp_path / "latin.json").write_bytes(b'[{"image_id": 1, "caption": "caf\xe9"}]')
    with pytest.raises(DataError, match="UTF-8"):
        io.read_predictions(tmp_path / "latin.json", "caption")


def test_bad_reference_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 2 has no caption"):
        io.read_references(
            _write(tmp_path / "r.json", {**COCO, "annotations": COCO["annotations"][::2]}), "caption"
        )
    twice = [{"id": 1, "label": "yes"}, {"id": 1, "label": "no"}]
    with pytest.raises(DataError, match="twice"):
        io.read_references(_write(tmp_path / "r.json", twice), "entailment")
    with pytest.raises(DataError, match="not score"):
        io.read_references(_write(tmp_path / "r.json", [{"id": 1, "answer": "x|!+a&&b"}]), "vqa")
    with pytest.raises(ConfigError, match="unknown kind"):
        io.read_references(tmp_path / "r.json", "captions")


def test_results_are_what_the_official_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "out" / "result.json"
    io.write_results(path, {"12": "b", "3": "a"}, "caption")
    assert json.loads(path.read_text()) == [{"image_id": 3, "caption": "a"}, {"image_id": 12, "caption": "b"}]
    io.write_results(path, {"x_1": (0, 0, 1, 1)}, "grounding")
    assert io.read_predictions(path, "grounding") == {"x_1": [0, 0, 1, 1]}
    coco = pytest.importorskip("pycocotools.coco")
    io.write_results(path, {"1": "a dog", "2": "cats"}, "caption")
    dataset = coco.COCO()
    dataset.dataset = {**COCO, "info": {}, "licenses": []}
    dataset.createIndex()
    assert sorted(dataset.loadRes(str(path)).getImgIds()) == [1, 2]


@pytest.mark.parametrize("images", [float("inf"), {"a": 1}, [{"id": {}}], [[1]]])
def test_lists_of_images_that_are_none(images, tmp_path):
    notes = [{"image_id": 0, "id": 0, "caption": "a cat"}]
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    with pytest.raises(DataError, match=r"expected a list|is no text or number"):
        io.read_references(path, "caption")
