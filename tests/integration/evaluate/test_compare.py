"""Intervals and paired tests against plain computations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unival.cli import main
from unival.evaluate.bootstrap import intervals, resample
from unival.evaluate.compare import bootstrap_p, mcnemar
from unival.evaluate.items import gather
from unival.evaluate.scoring import Scoring, score_predictions
from unival.metrics.bleu import bleu, bleu_counts, bleu_of_counts
from unival.specs import SpecOptions, get_spec
from unival.specs.scoring import join_captions
from unival.tables import open_table

WORDS = ["a", "red", "blue", "circle", "square", "on", "the", "left", "of"]


def captions(rng: np.random.Generator, n: int, right: float) -> tuple[list[str], list[list[str]]]:
    truth = [[" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(3)] for _ in range(n)]
    said = [refs[0] if rng.random() < right else " ".join(rng.choice(WORDS, 5)) for refs in truth]
    return said, truth


def test_bleu_of_counts_is_bleu() -> None:
    said, truth = captions(np.random.default_rng(0), 60, 0.5)
    said[3] = ""
    tokens = [text.split() for text in said], [[ref.split() for ref in refs] for refs in truth]
    expected, _ = bleu(*tokens)
    assert bleu_of_counts(np.sum(bleu_counts(*tokens), 0).tolist()) == pytest.approx(expected, abs=1e-12)


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    values = np.random.default_rng(1).random(400)
    found = intervals({"m": float(values.mean()), "x": 5.0}, {"m": values, "x": values})
    rng = np.random.default_rng(2)
    plain = [rng.choice(values, 400).mean() for _ in range(4000)]
    # two bootstraps differ by their draws: measured 0.0014
    assert found["m"] == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.004)
    assert "x" not in found, "a metric that is no mean over items gets no interval"
    assert intervals({"m": float(values.mean())}, {"m": values}) == {"m": found["m"]}
    constant = resample(np.ones((5, 1)), 10)
    assert (constant == 1).all()


def test_scores_of_items_belong_to_the_corpus_values() -> None:
    spec, options = get_spec("caption"), SpecOptions()
    said, truth = captions(np.random.default_rng(3), 50, 0.5)
    ids = [str(k) for k in range(50)]
    scored = score_predictions(spec, said, truth, options, ids)
    assert scored.metrics == spec.score(said, truth, options, ids), "validation and evaluation differ"
    for name in ("cider", "rougel", "exact"):
        assert scored.per_item[name].mean() == pytest.approx(scored.metrics[name], abs=1e-9)
    assert scored.counts is not None
    assert bleu_of_counts(scored.counts.sum(0).tolist())[3] == pytest.approx(
        scored.metrics["bleu4"], abs=1e-12
    )
    only = score_predictions(spec, said, truth, options, ids, Scoring(metrics=("rouge",)))
    assert set(only.metrics) == {"rougel", "exact"} and only.counts is None


@pytest.mark.parametrize(("a", "b", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375)])
def test_mcnemar(a: int, b: int, p: float) -> None:
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(p, abs=1e-12)


def test_mcnemar_of_many_items() -> None:
    from scipy.stats import binomtest

    assert mcnemar(5200, 4900) == pytest.approx(binomtest(4900, 10100).pvalue, rel=1e-8)


def test_bootstrap_p() -> None:
    assert bootstrap_p(np.full(99, 1.0)) == pytest.approx(0.02)
    assert bootstrap_p(np.zeros(99)) == 1.0


def save(
    folder: Path, values: dict[str, list[float]], task: str = "vqa", ids: list[str] | None = None
) -> Path:
    folder.mkdir()
    n = len(next(iter(values.values())))
    ids = ids or [f"q{k}" for k in range(n)]
    lines = [{"row": k, "id": ids[k], **{name: v[k] for name, v in values.items()}} for k in range(n)]
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result: dict[str, Any] = {"task": task, "modality": "image", "protocol": "unival"}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(4)
    right = (rng.random(300) < 0.5).astype(float)
    better = np.where(rng.random(300) < 0.2, 1.0, right)
    soft = rng.random(300)
    a = save(tmp_path / "a", {"score": right.tolist(), "soft": soft.tolist()})
    b = save(tmp_path / "b", {"score": better.tolist(), "soft": (soft + 0.001).tolist()})
    out = tmp_path / "c.json"
    assert main(["compare", str(a), str(b / "result.json"), "--out", str(out), "--resamples", "500"]) == 0
    printed = capsys.readouterr().out
    assert "McNemar" in printed and "paired bootstrap" in printed
    score, shifted = json.loads(out.read_text())["metrics"]
    gained = int((better > right).sum())
    assert (score["a_only"], score["b_only"]) == (0, gained) and score["p"] == pytest.approx(2 * 0.5**gained)
    assert score["low"] > 0 and score["difference"] == pytest.approx(gained / 300)
    assert shifted["p"] < 0.01 and shifted["low"] == pytest.approx(0.001), (
        "pairing makes a constant shift certain"
    )
    assert main(["compare", str(a), str(a)]) == 0
    assert "1.0000" in capsys.readouterr().out


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = save(tmp_path / "a", {"score": [1.0, 0.0]})
    other = save(tmp_path / "b", {"score": [1.0, 0.0]}, task="caption")
    partly = save(tmp_path / "c", {"score": [1.0, 0.0]}, ids=["q1", "q7"])
    for words, message in (
        ((a, other), "differ in task"),
        ((a, partly), "2 items are in one run only: 'q0', 'q7'"),
        ((a, tmp_path / "none"), "does not exist"),
    ):
        assert main(["compare", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
    assert main(["compare", str(a), str(partly), "--allow-partial"]) == 0
    assert "1 items" in capsys.readouterr().out
    (a / "scores.jsonl").write_text('{"row": 0, "id": "q0", "score"')
    assert main(["compare", str(a), str(partly)]) == 2
    assert "result of 'unival evaluate'" in capsys.readouterr().err


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str(self) == other


def test_many_captions_of_one_picture_are_compared_once_each(tmp_path: Path) -> None:
    spec = get_spec("caption")
    texts = [Counted(f"caption {k}") for k in range(400)]
    _, truth = join_captions(["x"] * 400, [[text] for text in texts], ["one"] * 400)
    assert len(truth["one"]) == 400 and Counted.compared < 4000

    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps({"image": "a.jpg", "caption": f"{k}"}) + "\n" for k in range(400)))

    class OfTexts(type(spec)):  # type: ignore[misc]
        def reference(self, row: Any, options: SpecOptions) -> list[str]:
            return [texts[int(row["caption"])]]

    counting = OfTexts()
    [item] = gather(counting, open_table(str(table), spec.fields, spec.layout_name), SpecOptions())
    assert item.reference == texts and Counted.compared < 8000
