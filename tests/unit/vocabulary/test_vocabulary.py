"""The vocabulary: layout, round trips, files, fingerprints, and tolerance of odd input."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unival.errors import CheckpointError, DataError
from unival.vocabulary import Vocabulary

TEXTS = [
    "a red circle above a blue square",
    "what colour is the circle?",
    "naïve café ☕ 你好",
    "the the the",
] * 3
VOCABULARY = Vocabulary.train(TEXTS, size=300, num_codes=16, num_bins=100)


def test_layout() -> None:
    v = VOCABULARY
    assert [v.symbol(i) for i in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert v.mask == len(v) - 16 - 100 - 1 and v.symbol(v.mask) == "<mask>"
    assert v.code_offset == v.mask + 1 and v.bin_offset == v.code_offset + 16
    assert v.symbol(len(v) - 1) == "<bin_99>" and v.symbol(v.bin_offset - 1) == "<code_15>"
    assert v.symbol(v.code_id(3)) == "<code_3>" and v.symbol(v.bin_id(7)) == "<bin_7>"


def test_training_learns_frequent_words() -> None:
    assert len(VOCABULARY.encode(" the")) == 1
    assert len(VOCABULARY) < 4 + 300 + 1 + 16 + 100 + 1
    with pytest.raises(DataError, match="at least 256"):
        Vocabulary.train(TEXTS, size=100)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    ids = VOCABULARY.encode(text)
    assert VOCABULARY.decode(ids) == text
    assert all(4 <= i < VOCABULARY.mask for i in ids)
    assert VOCABULARY.decode([0, *ids, 2, 1]) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(min_value=-(2**40), max_value=2**40) | st.integers(-2, len(VOCABULARY) + 2)))
def test_any_ids_decode(ids: list[int]) -> None:
    assert isinstance(VOCABULARY.decode(ids), str)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=6))
def test_symbols_come_back(bins: list[int]) -> None:
    text = " ".join(f"<bin_{b}>" for b in bins)
    ids = [VOCABULARY.bin_id(b) for b in bins]
    assert VOCABULARY.decode(ids) == text
    assert VOCABULARY.decode_box(ids).tolist() == bins


def test_symbols_and_words_are_set_off() -> None:
    ids = [
        *VOCABULARY.encode(" region:"),
        *map(VOCABULARY.bin_id, (1, 2)),
        *VOCABULARY.encode("the"),
    ]
    assert VOCABULARY.decode(ids) == " region: <bin_1> <bin_2> the"


def test_literal_symbols_in_text_stay_text() -> None:
    assert VOCABULARY.encode("<bin_7>") != [VOCABULARY.bin_id(7)]
    assert max(VOCABULARY.encode("<mask> <code_1>")) < VOCABULARY.mask


def test_lone_surrogates_do_not_break_encoding() -> None:
    assert VOCABULARY.decode(VOCABULARY.encode("a\ud800b")) == "a?b"


def test_decode_box_marks_other_tokens() -> None:
    boxes = VOCABULARY.decode_box(np.array([[VOCABULARY.bin_offset, 5], [2, len(VOCABULARY)]]))
    assert boxes.tolist() == [[0, -1], [-1, -1]]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: VOCABULARY.bin_id(100), "bin 100 is outside 0..99"),
        (lambda: VOCABULARY.code_id(16), "image code 16 is outside 0..15"),
        (lambda: VOCABULARY.code_id(-1), "image code -1 is outside 0..15"),
    ],
)
def test_bad_symbols(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    VOCABULARY.save(tmp_path / "v")
    loaded = Vocabulary.load(tmp_path / "v")
    assert loaded.fingerprint() == VOCABULARY.fingerprint()
    assert (loaded.num_codes, loaded.num_bins, len(loaded)) == (16, 100, len(VOCABULARY))
    assert loaded.encode(TEXTS[2]) == VOCABULARY.encode(TEXTS[2])
    # counts given to load are for folders that do not say; these do
    assert len(Vocabulary.load(tmp_path / "v", num_codes=8192)) == len(VOCABULARY)


def test_a_folder_without_counts_takes_those_given(tmp_path: Path) -> None:
    VOCABULARY.save(tmp_path)
    (tmp_path / "vocabulary.json").unlink()
    assert Vocabulary.load(tmp_path, num_codes=16, num_bins=100).fingerprint() == VOCABULARY.fingerprint()
    assert Vocabulary.load(tmp_path).num_codes == 8192


def test_fingerprint_tells_vocabularies_apart() -> None:
    others = [
        Vocabulary.train(TEXTS, 300, 16, 101),
        Vocabulary.train(TEXTS, 300, 17, 100),
        Vocabulary.train(TEXTS, 290, 16, 100),
        Vocabulary.train(TEXTS[:2], 300, 16, 100),
    ]
    assert len({v.fingerprint() for v in [VOCABULARY, *others]}) == 5


def test_training_is_deterministic_across_processes() -> None:
    code = (
        "from unival.vocabulary import Vocabulary\n"
        f"print(Vocabulary.train({TEXTS!r}, 300, 16, 100).fingerprint())"
    )
    found = set()
    for threads in ("1", "4"):
        env = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(Path(__file__).parents[3])}
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        found.add(run.stdout.strip())
    assert found == {VOCABULARY.fingerprint()}


def test_pickled_copy_encodes_alike() -> None:
    copy = pickle.loads(pickle.dumps(VOCABULARY))
    assert copy.encode(TEXTS[0]) == VOCABULARY.encode(TEXTS[0])


def test_damaged_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"dict\.txt cannot be read"):
        Vocabulary.load(tmp_path)
    VOCABULARY.save(tmp_path)
    (tmp_path / "dict.txt").write_text("5 1\n4 1\n")
    with pytest.raises(CheckpointError, match="not the one that was saved"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").unlink()
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\na b c\n")
    with pytest.raises(DataError, match="line 2"):
        Vocabulary.load(tmp_path)
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(DataError, match="JSON object"):
        Vocabulary.load(tmp_path)


def test_other_files_than_the_released_ones_warn(tmp_path: Path) -> None:
    VOCABULARY.save(tmp_path)
    with pytest.warns(UserWarning, match="is not the released file"):
        Vocabulary.released(tmp_path, 16, 100)
