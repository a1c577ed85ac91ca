"""Scores in the columns and units of the paper's tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from unival.cli import main
from unival.evaluate.paper import TABLES, named
from unival.evaluate.recipe import read_recipe
from unival.evaluate.reproduce import published, read_entries

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(p for p in (ROOT / "configs/evaluate").glob("*.yaml") if p.name != "base.yaml")
ENTRIES = read_entries()


@pytest.mark.parametrize(
    ("name", "metrics", "heading", "row"),
    [
        ("6 COCO", {"cider": 1.37, "bleu1": 0.8, "bleu4": 0.42, "meteor": 0.305, "spice": 0.236},
         "BLEU@4 METEOR CIDEr SPICE", "42.0 30.5 137.0 23.6"),
        ("8 MSRVTT", {"bleu4": 0.4642, "meteor": 0.2901, "rougel": 0.6292, "cider": 0.605},
         "B@4 M R C", "46.42 29.01 62.92 60.50"),
        ("8 ActivityNet", {"bleu3": 0.0767, "bleu4": 0.0476, "meteor": 0.1051}, "B@3 B@4 M", "7.67 4.76 10.51"),
        ("9", {"bleu1": 0.69, "bleu2": 0.515, "meteor": 0.237, "cider": 0.713, "spice": 0.178},
         "BLEU1 BLEU2 METEOR CIDEr SPICE", "0.690 0.515 0.237 0.713 0.178"),
        ("6 VQAv2", {"vqa_score": 0.77}, "Acc", "77.0"),
        ("6 VQAv2", {"vqa_accuracy": 0.7, "vqa_score": 0.77}, "Acc", "70.0"),
        ("5", {"score": 0.8912, "mean_iou": 0.8}, "Acc@0.5", "89.12"),
        ("6 SNLI-VE", {"snli_score": 0.782}, "Acc", "78.2"),
        ("19", {"score": 0.336, "fid": 15.4, "inception_score": 25.7}, "FID CLIPSIM IS", "15.4 33.6 25.7"),
        ("9", {"cider": 0.713}, "BLEU1 BLEU2 METEOR CIDEr SPICE", "- - - 0.713 -"),
    ],
)  # fmt: skip
def test_columns_and_units(name: str, metrics: dict[str, float], heading: str, row: str) -> None:
    table = named(name)
    _, first, second = table.lines([("", table.values(metrics))])
    assert " ".join(first.split()) == heading and " ".join(second.split()) == row


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_say_which_table(path: Path) -> None:
    assert read_recipe(path).extra["paper_table"] in TABLES


@pytest.mark.parametrize(
    ("entry", "split", "row"),
    [
        ("unival_caption_stage_1", "test", [42.0, 30.5, 137.0, 23.6]),
        ("unival_video_caption_stage_1", "test-bleu4", [46.42, 29.01, 62.92, 60.5]),
        ("unival_video_caption_activitynet_stage_1", "val", [7.67, 4.76, 10.51]),
        ("unival_audio_caption", "test", [0.69, 0.515, 0.237, 0.713, 0.178]),
        ("unival_audio_caption_clotho", "evaluation", [0.569, 0.367, 0.178, 0.38, 0.114]),
        ("unival_refcoco", "testB", [85.16]),
        ("unival_snli_ve", "test", [78.6]),
        ("unival_video_vqa", "test", [43.48]),
        ("unival_s2_hs", "caption-val", [90.07]),
        ("unival_s2_hs_okvqa", "val", [38.91]),
    ],
)
def test_the_catalogue_holds_the_papers_rows(entry: str, split: str, row: list[float]) -> None:
    found = ENTRIES[entry]
    table = named(found.paper_table or read_recipe(found.recipe_path()).extra["paper_table"])
    assert published(found, found.target(split), table) == pytest.approx(row, abs=1e-9)


def test_table_21() -> None:
    for entry, row in (
        ("unival_audio_caption", [0.69, 0.515, 0.376, 0.271, 0.237, 0.713, 0.178, 0.489]),
        ("unival_audio_caption_clotho", [0.569, 0.367, 0.245, 0.163, 0.178, 0.38, 0.114, 0.399]),
    ):
        found = ENTRIES[entry]
        assert published(found, found.target(None), named("21")) == pytest.approx(row, abs=1e-9)


def test_the_verb(checkpoint: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(checkpoint), str(world / "tables/caption_test.tsv"), "--image-dir", str(world)]
    words += ["--limit", "3", "--device", "cpu", "--eval-args", '{"beam": 1, "max_len_b": 6}']
    words += ["--out", str(tmp_path / "o"), "--java", str(tmp_path / "no-java")]
    assert main([*words, "--paper"]) == 2
    assert "name the table: 5, 6 VQAv2" in capsys.readouterr().err
    assert main([*words, "--paper", "6 COCOA"]) == 2
    assert "Did you mean '6 COCO'?" in capsys.readouterr().err
    assert main([*words, "--paper", "6 coco"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("paper, table 6 COCO (percent)")
    assert lines[start + 1].split() == ["BLEU@4", "METEOR", "CIDEr", "SPICE"]
    cells = lines[start + 2].split()
    assert cells[1] == cells[3] == "-" and all(float(cells[k]) >= 0 for k in (0, 2))
    assert "meteor needs Java" in lines[start + 3] and "spice needs Java" in lines[start + 4]
