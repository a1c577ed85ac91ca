"""The array trie against plain Python sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unival.errors import ConfigError
from unival.generate.trie import UNKNOWN, Trie

GENERATION = Path(__file__).parents[2] / "parity/data/generation.json"
answers = st.lists(st.lists(st.integers(4, 9), min_size=1, max_size=4), min_size=1, max_size=12)


def plain(sequences: list[list[int]], prefix: list[int]) -> list[int]:
    full = [[*s, 2] for s in sequences]
    following = {s[len(prefix)] for s in full if s[: len(prefix)] == prefix and len(s) > len(prefix)}
    return sorted(following) or [2]


@given(answers, st.lists(st.integers(0, 10), max_size=5))
def test_allowed_equals_sets(sequences: list[list[int]], prefix: list[int]) -> None:
    trie = Trie(sequences)
    assert trie.allowed(prefix) == plain(sequences, prefix)
    for sequence in sequences:
        for n in range(len(sequence) + 1):
            assert trie.allowed(sequence[:n]) == plain(sequences, sequence[:n])


@given(answers)
def test_batch_of_states_equals_single_states(sequences: list[list[int]]) -> None:
    trie = Trie(sequences)
    states = np.arange(UNKNOWN, len(trie))
    mask = trie.mask(states, 12)
    for row, state in zip(mask, states, strict=True):
        assert row.nonzero().flatten().tolist() == sorted(trie.pairs(np.array([state]))[1].tolist())
    tokens = np.arange(len(states)) % 12
    singles = [trie.advance(states[i : i + 1], tokens[i : i + 1])[0] for i in range(len(states))]
    assert trie.advance(states, tokens).tolist() == singles


@pytest.mark.parametrize("case", ["vqa_gen/trie", "snli_ve/trie"])
def test_reference_layers(case: str) -> None:
    """The reference puts bos before each prefix (so bos alone may follow the empty one); ours does not."""
    data = json.loads(GENERATION.read_text())["cases"][case]
    trie = Trie(data["answer_tokens"])
    for prefix, expected in data["next_layer"].items():
        tokens = json.loads(prefix)
        if tokens and tokens[0] == 0:
            assert trie.allowed(tokens[1:]) == expected, prefix
        elif tokens:
            assert trie.allowed(tokens) == expected, prefix


def test_allowed_lists() -> None:
    trie = Trie([[5, 6], [5], [7, 2]])
    assert trie.allowed_lists([5, 6, 2]) == [[5, 7], [2, 6], [2]]


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Trie([])
    with pytest.raises(ConfigError, match="empty answer"):
        Trie([[5], [2]])
