"""Answers, labels and boxes: the reference's scoring, groups by area, average precision, bad input."""

from __future__ import annotations

from typing import Any

import pytest

from unival.errors import ConfigError, DataError
from unival.metrics import accuracy, box_accuracy, mean_average_precision, soft_answer_accuracy, vqa_accuracy


def test_soft_accuracy_is_a_plain_lookup() -> None:
    references = [{"yes": 1.0, "yeah": 0.3}, {"two": 0.6}, {"red": 1.0}]
    scores = soft_answer_accuracy(["yeah", "2", "Red"], references)
    assert float(scores) == pytest.approx(0.1)
    assert [scores.per_item[i]["accuracy"] for i in range(3)] == [0.3, 0.0, 0.0]
    with pytest.raises(DataError, match="not a mapping"):
        soft_answer_accuracy(["a"], [["a"]])  # type: ignore[list-item]
    with pytest.raises(DataError, match="is None"):
        soft_answer_accuracy({1: None}, {1: {"a": 1.0}})  # type: ignore[dict-item]


def test_accuracy() -> None:
    scores = accuracy({1: "yes", 2: "no", 3: "maybe"}, {1: "yes", 2: "yes", 3: "maybe"})
    assert scores.corpus == {"accuracy": pytest.approx(2 / 3)}
    assert scores.to_dict()["per_item"]["2"] == {"accuracy": 0.0}
    with pytest.raises(DataError, match="no prediction: 3"):
        accuracy({1: "yes", 2: "no"}, {1: "yes", 2: "yes", 3: "maybe"})


def test_vqa_with_bad_answers() -> None:
    assert float(vqa_accuracy({1: "red"}, {1: ["red"] * 3 + ["blue"] * 7})) == pytest.approx(0.9)
    for humans in ([], [None], [{"answer_id": 1}]):
        with pytest.raises(DataError, match="human answers"):
            vqa_accuracy({1: "red"}, {1: humans})
    with pytest.raises(DataError, match="not a string"):
        vqa_accuracy({1: 5}, {1: ["red"] * 10})  # type: ignore[dict-item]


def test_box_groups_by_area() -> None:
    targets = {1: (0, 0, 10, 10), 2: (0, 0, 200, 200), 3: (0, 0, 400, 400), 4: (0, 0, 5, 5)}
    boxes = {1: (0, 0, 10, 10), 2: (0, 0, 10, 10), 3: (0, 0, 400, 390), 4: None}
    scores = box_accuracy(boxes, targets, (0.5, 0.99), areas=(30000, 100000))  # type: ignore[arg-type]
    assert scores.corpus["acc@0.5"] == 0.5
    assert scores.corpus["acc@0.99"] == 0.25
    assert scores.corpus["acc@0.5/small"] == 0.5 and scores.corpus["count/small"] == 2
    assert scores.corpus["acc@0.5/medium"] == 0.0 and scores.corpus["acc@0.5/large"] == 1.0
    # Reference behaviour: groups divide by all boxes.
    unival = box_accuracy(boxes, targets, areas=(30000, 100000), protocol="unival")  # type: ignore[arg-type]
    assert unival.corpus["acc@0.5/small"] == 0.25 and unival.corpus["acc@0.5/large"] == 0.25


def test_reference_boxes_miss_an_exact_half() -> None:
    target, box = [(0.0, 0.0, 1.0, 1.0)], [(0.0, 0.0, 1.0, 0.5)]
    assert box_accuracy(box, target).corpus["acc@0.5"] == 1.0
    assert box_accuracy(box, target, protocol="unival").corpus["acc@0.5"] == 0.0
    pixels = box_accuracy([(0, 0, 100, 51)], [(0, 0, 100, 100)], protocol="unival")
    assert pixels.corpus["acc@0.5"] == 1.0
    with pytest.raises(ConfigError, match="unknown protocol"):
        box_accuracy(box, target, protocol="refer")


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, 3, float("nan")), "box", 5, ("a", 1, 2, 3)])
def test_bad_boxes(box: Any) -> None:
    with pytest.raises(DataError, match="four finite numbers"):
        box_accuracy([box], [(0, 0, 1, 1)])
    with pytest.raises(DataError, match="four finite numbers"):
        box_accuracy([(0, 0, 1, 1)], [box])


def test_mean_average_precision() -> None:
    square = (0.0, 0.0, 10.0, 10.0)
    other = (20.0, 20.0, 30.0, 30.0)
    references = {1: [(square, "cat"), (other, "dog")], 2: [(square, "cat")]}
    perfect = {k: [(box, label, 0.9) for box, label in boxes] for k, boxes in references.items()}
    assert mean_average_precision(perfect, references).corpus["mAP"] == 1.0
    # cat: right, wrong, right by falling score -> AP 1/2 * 1 + 1/2 * 2/3; the dog is not found -> 0.
    mixed = {1: [(square, "cat", 0.9), (other, "cat", 0.8)], 2: [(square, "cat", 0.7)]}
    scores = mean_average_precision(mixed, references, (0.5, 0.75))
    assert scores.corpus["mAP@0.5"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    # A second box on a target that is taken counts as wrong.
    double = {1: [(square, "cat", 0.9), (square, "cat", 0.8)], 2: []}
    assert mean_average_precision(double, references).corpus["mAP"] == pytest.approx(0.25)
    with pytest.raises(DataError, match="no boxes"):
        mean_average_precision({1: []}, {1: []})
