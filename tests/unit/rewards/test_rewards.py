"""Rewards equal the offline metrics; size conditions of the six rewarded-soup scripts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from unival.errors import ConfigError, DataError
from unival.metrics import box_accuracy, caption_scores
from unival.metrics.caption import training_cider
from unival.rewards import BoxReward, CaptionOptions, CaptionReward, GroundingOptions, WeightedOptions
from unival.specs import SpecOptions, get_spec
from unival.tables import Table, open_table

CORPUS = {
    "a": ["A red circle, left of a square.", "The circle's red!", "a circle and a square"],
    "b": ["Two dogs run over the grass", "dogs running"],
    "c": ["A man who's riding a wave on top of a surf-board", "a surfer on a wave"],
    "d": ["the green triangle is above the blue square", "A triangle above a square."],
}
CAPTIONS = {
    "a": ["a red circle and a square", "a dog"],
    "b": ["two dogs running over grass", ""],
    "c": ["a man riding a wave on a surf-board", "a surfer on a wave"],
    "d": ["a green triangle above the square", "the the the the"],
}


def table(folder: Path, rows: list[tuple[str, str]]) -> Table:
    path = folder / "captions.jsonl"
    path.write_text(
        "".join(json.dumps({"id": key, "image": f"{key}.png", "caption": text}) + "\n" for key, text in rows)
    )
    return open_table(path, get_spec("caption").fields)


def corpus_reward(rows: Table, tokenizer: str = "ptb") -> CaptionReward:
    return CaptionReward.of_corpus(
        (rows[i] for i in range(len(rows))), get_spec("caption"), SpecOptions(), tokenizer
    )


@pytest.mark.parametrize("layout", ["joined", "one caption a row"])
@pytest.mark.parametrize("tokenizer", ["ptb", "split"])
def test_captions_equal_the_offline_metric(tmp_path: Path, layout: str, tokenizer: str) -> None:
    rows = [(key, "&&".join(texts)) for key, texts in CORPUS.items()]
    if layout != "joined":
        rows = [(key, text) for key, texts in CORPUS.items() for text in texts]
    reward = corpus_reward(table(tmp_path, rows), tokenizer)
    # a row that holds one caption only is scored against all captions of its picture
    own = [CORPUS[key] if layout == "joined" else CORPUS[key][:1] for key in CORPUS]
    found = reward(list(CORPUS), [CAPTIONS[key] for key in CORPUS], own)
    assert found.shape == (4, 2)
    protocol = "official" if tokenizer == "ptb" else "unival"
    for k in range(2):
        offline = caption_scores(
            {key: CAPTIONS[key][k] for key in CORPUS}, CORPUS, ("cider",), tokenizer, protocol=protocol
        )
        assert found[:, k].tolist() == pytest.approx(
            [offline.per_image[key]["CIDEr"] for key in CORPUS], abs=1e-6
        )
        assert found[:, k].mean().item() == pytest.approx(offline.corpus["CIDEr"], abs=1e-6)


def test_rewards_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    reward = corpus_reward(table(tmp_path, [(key, "&&".join(texts)) for key, texts in CORPUS.items()]))
    together = reward(list(CORPUS), [CAPTIONS[key] for key in CORPUS], list(CORPUS.values()))
    for number, key in enumerate(CORPUS):
        alone = reward([key], [CAPTIONS[key]], [CORPUS[key]])
        assert alone.tolist() == together[number : number + 1].tolist()
    assert reward(["a"], [["a red circle", None]], [CORPUS["a"]])[0, 1] == 0.0


def test_cached_frequencies(tmp_path: Path) -> None:
    """The reference's pickle gives the number that its validation prints."""
    counts = {("a",): 3.0, ("dogs",): 1.0, ("a", "square"): 2.0}
    path = tmp_path / "words.p"
    path.write_bytes(pickle.dumps({"document_frequency": counts, "ref_len": 100.0}))
    reward = CaptionReward.cached(str(path), "split")
    found = reward(list(CORPUS), [CAPTIONS[key][:1] for key in CORPUS], list(CORPUS.values()))
    offline = training_cider({key: CAPTIONS[key][0] for key in CORPUS}, CORPUS, path)
    assert found[:, 0].tolist() == pytest.approx(
        [offline.per_image[key]["CIDEr"] for key in CORPUS], abs=1e-6
    )
    path.write_bytes(pickle.dumps({"document_frequency": counts, "ref_len": Path("x")}))
    with pytest.raises(DataError, match="not a pickle of document frequencies"):
        CaptionReward.cached(str(path))


SMALL, MEDIUM, LARGE = (0.0, 0.0, 200.0, 100.0), (0.0, 0.0, 250.0, 200.0), (10.0, 10.0, 510.0, 310.0)
LIMITS = {"max_area_size": 30000.0, "min_area_size": 100000.0}
# script: its size options, and whether hits on small, medium and large targets are rewarded
SCRIPTS = {
    "small": ({"max_area_size": 30000.0}, (1, 0, 0)),
    "medium": ({**LIMITS, "medium_area": True}, (0, 1, 0)),
    "large": ({"min_area_size": 100000.0}, (0, 0, 1)),
    "smalllarge": (LIMITS, (1, 0, 1)),
    "mediumsmall": ({"min_area_size": 100000.0, "medium_area": True}, (1, 1, 0)),
    "mediumlarge": ({"max_area_size": 30000.0, "medium_area": True}, (0, 1, 1)),
    "none": ({}, (1, 1, 1)),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_size_conditions(script: str) -> None:
    options, wanted = SCRIPTS[script]
    reward = BoxReward(acc_thresh=0.5, **options)
    targets = [SMALL, MEDIUM, LARGE]
    assert reward([[t] for t in targets], targets)[:, 0].tolist() == list(wanted)
    # the size of the prediction does not matter, only the target's
    whole = (0.0, 0.0, 512.0, 320.0)
    hits = [1 if target == LARGE else 0 for target in targets]
    assert reward([[whole]] * 3, targets)[:, 0].tolist() == [h * w for h, w in zip(hits, wanted, strict=True)]


def test_a_target_at_the_limit() -> None:
    low, high = (0.0, 0.0, 300.0, 100.0), (0.0, 0.0, 500.0, 200.0)
    wanted = {
        "small": (0, 0),
        "medium": (1, 1),
        "large": (0, 0),
        "smalllarge": (0, 0),
        "mediumsmall": (1, 1),
        "mediumlarge": (1, 1),
        "none": (1, 1),
    }
    for script, (options, _) in SCRIPTS.items():
        found = BoxReward(acc_thresh=0.5, **options)([[low], [high]], [low, high])[:, 0]
        assert tuple(found.tolist()) == wanted[script], script


PREDICTED = [
    (0.0, 0.0, 200.0, 50.0),  # IoU exactly 0.5
    (0.0, 0.0, 250.0, 130.0),
    (0.0, 0.0, 400.0, 200.0),
    None,
    (5.0, 5.0, 1.0, 1.0),
]
TARGETS = [SMALL, MEDIUM, LARGE, SMALL, LARGE]


def test_boxes_equal_the_offline_metric() -> None:
    areas = (LIMITS["max_area_size"], LIMITS["min_area_size"])
    offline = box_accuracy(PREDICTED, TARGETS, (0.5,), areas=areas)
    boxes = [[box] for box in PREDICTED]
    hits = BoxReward(acc_thresh=0.5)(boxes, TARGETS)[:, 0]
    assert hits.tolist() == [offline.per_item[i]["acc@0.5"] for i in range(5)]
    overlaps = BoxReward()(boxes, TARGETS)[:, 0]
    assert overlaps.tolist() == pytest.approx([offline.per_item[i]["iou"] for i in range(5)], abs=1e-6)
    for size in ("small", "medium", "large"):
        rewards = BoxReward(acc_thresh=0.5, **SCRIPTS[size][0])(boxes, TARGETS)
        share = rewards.sum().item() / offline.corpus[f"count/{size}"]
        assert share == pytest.approx(offline.corpus[f"acc@0.5/{size}"], abs=1e-6)


def test_rewards_replaced() -> None:
    boxes = [[PREDICTED[1], None]]
    assert BoxReward(acc_thresh=0.5, pos_reward=2.0)(boxes, [MEDIUM]).tolist() == [[2.0, 0.0]]
    assert BoxReward(acc_thresh=0.5, neg_reward=-1.0)(boxes, [MEDIUM]).tolist() == [[1.0, -1.0]]
    # without a threshold the overlap is positive
    assert BoxReward(pos_reward=3.0, neg_reward=0.5)(boxes, [MEDIUM]).tolist() == [[3.0, 0.5]]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (BoxReward, {"medium_area": True}, "medium_area needs a limit"),
        (BoxReward, {"max_area_size": 9.0, "min_area_size": 4.0}, "exchange them"),
        (BoxReward, {"metric": "map"}, "give acc"),
        (BoxReward, {"acc_thresh": 1.5}, r"overlap in \(0, 1\], got 1.5"),
        (GroundingOptions, {"lambda_reinforce": -1.0}, "expected 0 or more"),
        (GroundingOptions, {"reinforce_prefix": "targets"}, "Did you mean 'target'"),
        (WeightedOptions, {"reinforce": True, "lambda_reinforce": 1.0}, "give --logprob too"),
        (WeightedOptions, {"reinforce": True, "logprob": True}, "refcoco_scst_reward_criterion"),
        (WeightedOptions, {"lambda_reinforce": 2.0}, "nothing else uses"),
        (CaptionOptions, {"scst_tokenizer": "ptbb"}, "Did you mean 'ptb'"),
    ],
)
def test_refusals(kind: type, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)
