"""Captions in scripts without blanks: a warning, and a tokeniser by characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unival.cli import main
from unival.metrics import caption_scores
from unival.metrics.characters import WARNING, character_tokenize

REFERENCES = {
    0: ["一只红色的方块在灰色背景上", "一只红色的方块在灰色背景上的照片"],
    1: ["一个人在骑自行车", "一个人在骑自行车的照片"],
    2: ["两只狗在草地上奔跑", "两只狗在草地上奔跑的照片"],
    3: ["桌子上有一杯咖啡", "桌子上有一杯咖啡的照片"],
}
CANDIDATES = {
    0: "两只红色的方块在灰色背景上",
    1: "两个人在骑自行车",
    2: "两只狗在草地上奔跑",
    3: "桌子上有两杯咖啡",
}


def test_unbroken_captions_are_said_and_can_be_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, truth = tmp_path / "p.jsonl", tmp_path / "r.jsonl"
    said.write_text("".join(json.dumps({"id": k, "caption": v}) + "\n" for k, v in CANDIDATES.items()))
    truth.write_text("".join(json.dumps({"id": k, "references": v}) + "\n" for k, v in REFERENCES.items()))
    words = ["score", str(said), str(truth), "--task", "caption"]
    with pytest.warns(UserWarning, match="without blanks"):
        assert main(words) == 0
    assert WARNING in capsys.readouterr().out
    assert main([*words, "--tokenizer", "characters", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["scores"]["Bleu_4"] > 0.7 and result["scores"]["CIDEr"] > 1
    assert result["tokenizer"] == "characters" and "warning" not in result


def test_characters_are_the_words_split_by_hand() -> None:
    by_hand = [{k: [" ".join(t) for t in v] for k, v in REFERENCES.items()}]
    by_hand.append({k: " ".join(v) for k, v in CANDIDATES.items()})
    expected = caption_scores(by_hand[1], by_hand[0], tokenizer="split")
    found = caption_scores(CANDIDATES, REFERENCES, tokenizer="characters")
    assert found.corpus == expected.corpus


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("两只狗,在草地上。", ["两", "只", "狗", "在", "草", "地", "上"]),
        ("3 只 cats, running", ["3", "只", "cats", "running"]),
        ("か\u3099っこう", ["か\u3099", "っ", "こ", "う"]),
        ("กำลัง", ["กำ"[0] + "ำ"[:0], "ำ", "ลั", "ง"]),
        ("a dog's ball", ["a", "dog", "'s", "ball"]),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert character_tokenize(text) == tokens


@pytest.mark.parametrize(
    "captions",
    [
        ["两 只 狗 在 草地 上 奔跑", "一 个 人 在 骑 自行车"],  # split into words
        ["een straatbeeld met fietsers", "eine Straßenbahnhaltestelle"],
        ["두 마리의 개가 잔디밭에서 달린다"],
        ["红色", "蓝色"],
    ],
)
def test_no_warning_for_words(captions: list[str]) -> None:
    scores = caption_scores({0: captions[0], 1: "x"}, {0: captions, 1: ["x y"]})
    assert "warning" not in scores.info
