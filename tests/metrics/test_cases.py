"""Scores and tokens equal those of the official programs."""

from __future__ import annotations

import random
import shutil
import warnings

import pytest

from tests.support.cases import captions, case
from unival.metrics import (
    box_accuracy,
    box_iou,
    caption_scores,
    cider_d,
    normalise_answer,
    ptb_tokenize,
    vqa_accuracy,
)
from unival.metrics.bleu import bleu
from unival.metrics.java import JavaSettings, java_tokenize, unavailable
from unival.metrics.rouge import rouge_l

CAPTION_CASES = ("public_coco_main", "public_coco_fakecap", "public_nasty", "public_single_image")
needs_java = pytest.mark.skipif(
    shutil.which("java") is None or unavailable("meteor", JavaSettings()) is not None,
    reason="needs Java and pycocoevalcap's jars",
)


@pytest.mark.parametrize("name", CAPTION_CASES)
def test_caption_scores_equal_official(name: str) -> None:
    data, candidates, references = captions(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = caption_scores(candidates, references)
    # Measured: corpus 2.2e-16; per image 5e-13, the rounding of the stored values.
    for metric, value in scores.corpus.items():
        assert value == pytest.approx(data["expected_corpus"][metric], abs=1e-9)
    for key, expected in data["expected_per_image"].items():
        for metric, value in scores.per_image[int(key)].items():
            assert value == pytest.approx(expected[metric], abs=1e-9), (key, metric)


@pytest.mark.parametrize("name", CAPTION_CASES)
def test_candidate_tokens(name: str) -> None:
    data, candidates, _ = captions(name)
    for key, text in candidates.items():
        assert " ".join(ptb_tokenize(text)) == data["expected_tokens_results"][str(key)]


def test_tokens_equal_java_on_all_rows() -> None:
    rows = case("public_ptb_tokens")["rows"]
    assert len(rows) == 1220
    wrong = [row["raw"] for row in rows if " ".join(ptb_tokenize(row["raw"])) != row["tokens"]]
    assert wrong == []


@needs_java
@pytest.mark.slow
@pytest.mark.parametrize("name", ("public_nasty", "public_coco_main"))
def test_meteor_equals_official(name: str) -> None:
    data, candidates, references = captions(name)
    scores = caption_scores(candidates, references, ("meteor",))
    assert scores.corpus["METEOR"] == pytest.approx(data["expected_corpus"]["METEOR"], abs=1e-9)
    for key, expected in data["expected_per_image"].items():
        assert scores.per_image[int(key)]["METEOR"] == pytest.approx(expected["METEOR"], abs=1e-9)
    assert scores.info["java"] != "unknown"


@needs_java
def test_java_tokenizer_gives_the_same_tokens() -> None:
    _, candidates, references = captions("public_nasty")
    texts = list(candidates.values()) + [text for refs in references.values() for text in refs]
    # A caption between any two: the Java program looks at the next caption's first word.
    theirs = java_tokenize([line for text in texts for line in (text, "A")])[::2]
    assert theirs == [ptb_tokenize(text) for text in texts]


@pytest.mark.parametrize("index", range(5))
def test_small_published_cases(index: int) -> None:
    item = case("published_small")["cases"][index]
    split = ptb_tokenize if item["tokenise_with_ptb"] else str.split
    hyps = [split(text) for text in item["candidates"]]
    refs = [[split(text) for text in texts] for texts in item["references"]]
    expected = item["recomputed_here"]
    for n, value in enumerate(bleu(hyps, refs)[0]):
        assert value == pytest.approx(expected[f"Bleu_{n + 1}"], abs=1e-9)
    assert sum(rouge_l(hyps, refs)) / len(hyps) == pytest.approx(expected["ROUGE_L"], abs=1e-9)
    assert sum(cider_d(hyps, refs)) / len(hyps) == pytest.approx(expected["CIDEr"], abs=1e-9)


def test_scorers_equal_pycocoevalcap_on_random_tokens() -> None:
    pytest.importorskip("pycocoevalcap.cider.cider")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    rng = random.Random(0)
    words = [f"w{int(rng.paretovariate(0.8))}" for _ in range(400)]
    draw = lambda: [rng.choice(words) for _ in range(rng.randint(1, 15))]  # noqa: E731
    hyps = [draw() for _ in range(60)]
    refs = [[draw() for _ in range(rng.randint(1, 6))] for _ in hyps]
    gts = {i: [" ".join(ref) for ref in texts] for i, texts in enumerate(refs)}
    res = {i: [" ".join(words)] for i, words in enumerate(hyps)}
    corpus, per_item = Bleu(4).compute_score(gts, res, verbose=0)
    ours, ours_items = bleu(hyps, refs)
    assert ours == pytest.approx(corpus, abs=1e-12)
    for n in range(4):
        assert [item[n] for item in ours_items] == pytest.approx(per_item[n], abs=1e-12)
    assert cider_d(hyps, refs) == pytest.approx(list(Cider().compute_score(gts, res)[1]), abs=1e-12)
    assert rouge_l(hyps, refs) == pytest.approx(list(Rouge().compute_score(gts, res)[1]), abs=1e-12)


@pytest.mark.parametrize("name", ("public_vqa_real", "public_vqa_nasty"))
def test_vqa_equals_official(name: str) -> None:
    data = case(name)
    references = {row["question_id"]: row["answers"] for row in data["annotations"]}
    kinds = {
        kind: {row["question_id"]: row[kind] for row in data["annotations"]}
        for kind in ("answer_type", "question_type")
    }
    scores = vqa_accuracy({r["question_id"]: r["answer"] for r in data["results"]}, references, kinds)
    assert round(100 * scores.corpus["accuracy"], 2) == data["expected_overall"]
    for kind, key in (
        ("answer_type", "expected_perAnswerType"),
        ("question_type", "expected_perQuestionType"),
    ):
        for group, value in data[key].items():
            assert round(100 * scores.corpus[f"{kind}/{group}"], 2) == value
    for key, value in data["expected_per_question"].items():
        assert round(100 * scores.per_item[int(key)]["accuracy"], 2) == value
    for text, value in data["expected_normalised"].items():
        assert normalise_answer(text) == value


def test_boxes_equal_exact_arithmetic() -> None:
    data = case("public_grounding")
    rows = {row["id"]: row for row in data["rows"]}
    thresholds = (0.25, 0.5, 0.75, 0.9)
    scores = box_accuracy(
        {key: row["pred"] for key, row in rows.items()},
        {key: row["gt"] for key, row in rows.items()},
        thresholds,
    )
    for key, row in rows.items():
        assert box_iou(row["pred"], row["gt"]) == pytest.approx(row["expected_iou"], abs=1e-6)
        assert scores.per_item[key]["acc@0.5"] == row["expected_hit_0.5"]
    for threshold in thresholds:
        assert scores.corpus[f"acc@{threshold}"] == data[f"expected_acc_at_{threshold}"]
