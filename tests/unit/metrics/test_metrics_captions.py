"""Caption scores on bad input: a clear error or a right answer, never a shift or a silent subset."""

from __future__ import annotations

import collections
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from unival.errors import ConfigError, DataError
from unival.metrics import caption_scores, ptb_tokenize, read_frequencies, training_cider
from unival.metrics.cider import DocumentFrequencies
from unival.vocabulary.cleaning import delete_punctuation

REFERENCES = {
    1: ["A dog runs on the grass.", "The dog is running."],
    2: ["Two cats sleep on a sofa."],
    3: ["A man rides a bike, fast!", "A cyclist in the street.", "Man on a bike"],
}
CANDIDATES = {1: "a dog on grass", 2: "cats on a sofa", 3: "a man on a bike"}


def test_empty_caption_keeps_its_place() -> None:
    full = caption_scores(CANDIDATES, REFERENCES)
    scores = caption_scores({**CANDIDATES, 2: ""}, REFERENCES)
    assert scores.per_image[2] == pytest.approx(dict.fromkeys(scores.corpus, 0.0), abs=1e-6)
    assert scores.per_image[1] == full.per_image[1]
    assert scores.per_image[3] == full.per_image[3]


@pytest.mark.parametrize(
    "breaker", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\u2028", "\u2029", "\x1c", "\x00", "\u200b"]
)
def test_line_separators_shift_nothing(breaker: str) -> None:
    expected = caption_scores(CANDIDATES, REFERENCES)
    broken = caption_scores(
        {**CANDIDATES, 1: f"a dog{breaker}on grass"},
        {**REFERENCES, 2: [f"Two cats sleep{breaker}on a sofa."]},
    )
    assert broken.per_image == expected.per_image


def test_non_ascii_text() -> None:
    assert ptb_tokenize("Café “naïve” 日本 \U0001f600 ½ it’s 22 3/4") == [
        *("café", "naïve", "日本", "1/2", "it", "'s", "22\xa03/4")
    ]
    assert ptb_tokenize("a ||| b") == ["a", "|", "|", "|", "b"]


@pytest.mark.parametrize("text", ["", " ", ".", "!?.,", "\n", "'", "\U0001f600", "\ud800"])
def test_odd_strings_tokenise(text: str) -> None:
    assert ptb_tokenize(text) in ([], ["!?"])


def test_missing_unknown_and_mistyped_ids_are_errors() -> None:
    with pytest.raises(DataError, match=r"1 of 3 references have no prediction: 3"):
        caption_scores({1: "a", 2: "b"}, REFERENCES)
    with pytest.raises(DataError, match="not among the references: 9"):
        caption_scores({**CANDIDATES, 9: "x"}, REFERENCES)
    with pytest.raises(DataError, match="ids are strings"):
        caption_scores({str(k): v for k, v in CANDIDATES.items()}, REFERENCES)
    with pytest.raises(DataError, match="empty set"):
        caption_scores({}, {})
    with pytest.raises(DataError, match="2 predictions but 3 references"):
        caption_scores(["a", "b"], list(REFERENCES.values()))
    with pytest.raises(DataError, match="both"):
        caption_scores(["a"], REFERENCES)


def test_missing_on_request_is_counted() -> None:
    part = {1: CANDIDATES[1], 2: CANDIDATES[2]}
    zero = caption_scores(part, REFERENCES, missing="zero")
    assert zero.per_image[3] == dict.fromkeys(zero.corpus, 0.0)
    assert zero.info["missing"] == 1 and zero.info["items"] == 3
    left = caption_scores(part, REFERENCES, missing="ignore")
    assert set(left.per_image) == {1, 2} and left.info["missing"] == 1
    with pytest.raises(ConfigError, match="choose one of"):
        caption_scores(part, REFERENCES, missing="drop")


@pytest.mark.parametrize("value", [None, 5, ["a"], b"a"])
def test_captions_must_be_strings(value: Any) -> None:
    with pytest.raises(DataError, match="not a string"):
        caption_scores({**CANDIDATES, 2: value}, REFERENCES)
    with pytest.raises(DataError):
        caption_scores(CANDIDATES, {**REFERENCES, 2: [value]})


@pytest.mark.parametrize("value", [[], None, "one string"])
def test_references_must_be_lists(value: Any) -> None:
    with pytest.raises(DataError, match="no list of references"):
        caption_scores(CANDIDATES, {**REFERENCES, 2: value})


def test_single_image_warns() -> None:
    with pytest.warns(UserWarning, match="single image"):
        scores = caption_scores({1: "a dog"}, {1: ["a dog"]})
    assert scores.corpus["CIDEr"] == 0.0 and "warning" in scores.info


def test_order_does_not_matter() -> None:
    keys = list(range(50))
    rng = random.Random(1)
    words = ["a", "the", "dog", "cat", "runs", "sits", "on", "grass", "red", "blue"]
    candidates = {k: " ".join(rng.choices(words, k=7)) for k in keys}
    references = {k: [" ".join(rng.choices(words, k=8)) for _ in range(3)] for k in keys}
    first = caption_scores(candidates, references)
    rng.shuffle(keys)
    second = caption_scores(
        {k: candidates[k] for k in keys}, {k: references[k] for k in sorted(keys, reverse=True)}
    )
    assert first == second


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cider'"):
        caption_scores(CANDIDATES, REFERENCES, ("cidr",))
    with pytest.raises(ConfigError, match="unknown tokenizer"):
        caption_scores(CANDIDATES, REFERENCES, tokenizer="moses")
    with pytest.raises(ConfigError, match="unknown protocol"):
        caption_scores(CANDIDATES, REFERENCES, protocol="ofa")


def test_reference_protocol_deletes_punctuation() -> None:
    assert delete_punctuation("the dog's, ball.") == "the dogs ball"
    references = {1: ["the dog's ball"], 2: ["a cat"]}
    official = caption_scores({1: "the dog's ball", 2: "a cat"}, references)
    unival = caption_scores({1: "the dog's ball", 2: "a cat"}, references, protocol="unival")
    assert official.corpus["Bleu_1"] == pytest.approx(1.0) and unival.corpus["Bleu_1"] < 0.9
    assert unival.info["protocol"] == "unival"


def test_cached_document_frequencies(tmp_path: Path) -> None:
    table = collections.defaultdict(float, {("dog",): 2.0, ("a", "dog"): 1.0})
    path = tmp_path / "words.p"
    path.write_bytes(pickle.dumps({"document_frequency": table, "ref_len": 5}))
    frequencies = read_frequencies(path)
    assert frequencies.images == 5.0 and frequencies.counts[("a", "dog")] == 1.0
    assert ("b",) not in frequencies.counts
    cached = training_cider(CANDIDATES, REFERENCES, path)
    direct = training_cider(CANDIDATES, REFERENCES, DocumentFrequencies(dict(table), 5.0))
    assert cached.corpus == direct.corpus and cached.corpus["CIDEr"] > 0
    assert "words.p sha256:" in cached.info["document_frequencies"]
    assert cached.info["tokenizer"] == "split" and cached.info["protocol"] == "unival"


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@pytest.mark.parametrize("value", [_Evil(), {"document_frequency": 3, "ref_len": 5}, {"ref_len": 1}, [1]])
def test_foreign_pickles_are_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "bad.p"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=r"bad\.p"):
        read_frequencies(path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(DataError):
        read_frequencies(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_frequencies(tmp_path / "absent.p")
