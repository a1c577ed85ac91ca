"""What a run says of itself: the first look, the line of a validation, the time that is left."""

from __future__ import annotations

import re

import pytest

from unival.tasks.progress import Pace, duration


def test_a_run_says_how_it_goes(train, tables):
    """One line held all there was: numbers of losses; nothing was shown before the first validation."""
    data = [tables / "vqa_train.tsv", tables / "vqa_val.tsv"]
    options = ("--max-update=4", "--validate-interval-updates=3", "--first-look=0.001")
    run = train("vqa_gen", data, *options).ok()
    [first] = re.findall(r"first look at update 1 of 4, about .* left: (.*)", run.out)
    [line] = re.findall(r"validation at update 3 of 4, about .* left: (.*)", run.out)
    for said in (first, line):
        assert re.match(
            r"vqa_score [\d.]+ \(the most frequent answer: [\d.]+\); \d+ different of \d+; '.*' \(= '.*'\); '",
            said,
        )
    without = train("vqa_gen", data, *options, "--first-look=0", name="without").ok()
    assert "first look" not in without.out
    losses = [
        re.findall(r'"loss": ([\d.]+)', (r.folder / "train_log.jsonl").read_text()) for r in (run, without)
    ]
    assert losses[0] == losses[1] and losses[0], "looking changes nothing"


def test_boxes_have_a_line_too(train, tables):
    data = [tables / "grounding_train.tsv", tables / "grounding_val.tsv"]
    run = train("refcoco", data, "--max-update=1", "--first-look=0").ok()
    assert re.search(
        r"validation at update 1 of 1: score [\d.]+ \((the whole picture|a box in the middle): ", run.out
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4, "about 4 s"), (400, "about 7 min"), (9000, "about 2.5 h"), (260000, "about 3.0 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_time_left():
    pace = Pace()
    assert pace.left(5, 10) == "" and pace.seconds == 0
    pace.begin(5)
    assert (
        pace.left(5, 10) == ""
        and pace.left(6, 0) == pace.left(10, 10) == ""
        and pace.left(7, 10) == "about 0 s left"
    )
