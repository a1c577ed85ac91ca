"""Text infilling: what is hidden, what is shown, and that nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unival.batching.batch import collate
from unival.core.seeding import rng_for
from unival.errors import ConfigError, DataError
from unival.media import MediaLoader
from unival.specs import SpecOptions, get_spec
from unival.specs.infilling import noised
from unival.tables.row import Row
from unival.vocabulary import Vocabulary

VOCABULARY = Vocabulary.train(["the quick brown fox jumps over the lazy dog"], 300, 0, 2)
TEXT = "The quick, brown fox jumps over the lazy dog"
WORDS = [VOCABULARY.encode(f" {word}") for word in TEXT.lower().split()]
MEDIA = MediaLoader(".")
BEFORE, AFTER = ' what is the complete text of "', ' "?'


def row(text: Any = TEXT) -> Row:
    return Row({"text": text}, "texts.tsv", 3)


def shown(options: SpecOptions, index: int = 0) -> list[int]:
    return noised(WORDS, options, VOCABULARY, rng_for(1, 1, index))


def test_source_and_target() -> None:
    spec = get_spec("infilling")
    assert spec.modality == "text" and spec.modality_of(row()) is None
    [example] = spec.examples(row(), MEDIA, SpecOptions(), VOCABULARY, rng_for(1, 1, 5), training=True)
    source = VOCABULARY.decode(example.source.tolist())
    assert source.startswith(BEFORE) and source.endswith(AFTER) and "<mask>" in source
    assert VOCABULARY.decode(example.target.tolist()) == " the quick, brown fox jumps over the lazy dog"
    assert example.target[-1] == VOCABULARY.eos and example.media is None and example.modality is None
    assert spec.decode(example.target, example, VOCABULARY) == example.reference
    batch = collate([example])
    assert batch["net_input"]["patch_types"].tolist() == [-1] and "patch_images" not in batch["net_input"]
    prompts = {"infilling": " mend: {text}!"}
    [other] = spec.examples(row(), MEDIA, SpecOptions(prompts=prompts, mask_ratio=0.0), VOCABULARY)
    assert VOCABULARY.decode(other.source.tolist()) == " mend: the quick, brown fox jumps over the lazy dog!"


def test_evaluation_hides_the_same_words_and_training_others() -> None:
    spec = get_spec("infilling")

    def source(rng: np.random.Generator | None) -> list[int]:
        return spec.examples(row(), MEDIA, SpecOptions(), VOCABULARY, rng, rng is not None)[0].source.tolist()

    assert source(None) == source(None)
    assert len({tuple(source(rng_for(1, epoch, 0))) for epoch in range(8)}) > 4


@settings(deadline=None, max_examples=80)
@given(
    st.floats(0, 1),
    st.sampled_from(["span-poisson", "word", "subword"]),
    st.sampled_from([1, 0, -1]),
    st.integers(0, 99),
)
def test_what_stays_stays_in_order(ratio: float, pieces: str, replace: int, index: int) -> None:
    options = SpecOptions(mask_ratio=ratio, mask_length=pieces, replace_length=replace)
    out = shown(options, index)
    left = iter([token for word in WORDS for token in word])
    assert all(token in left for token in out if token != VOCABULARY.mask)
    units = len(WORDS) if pieces != "subword" else sum(map(len, WORDS))
    hidden = int(np.ceil(units * ratio))
    kept = [token for token in out if token != VOCABULARY.mask]
    if pieces == "subword":
        assert len(kept) == units - hidden
    else:
        # whole words: what is kept is the concatenation of that many of them
        words = {tuple(word) for word in WORDS}
        count, piece = 0, []
        for token in kept:
            piece.append(token)
            if tuple(piece) in words and VOCABULARY.decode(piece).strip() in TEXT.lower().split():
                count, piece = count + 1, []
        assert not piece and count == units - hidden
    if replace == 0:
        assert VOCABULARY.mask not in out
    if replace == -1:
        assert len(out) == sum(map(len, WORDS))


def test_spans_follow_the_poisson_mean() -> None:
    words = [[100 + n] for n in range(2000)]
    masks = noised(words, SpecOptions(poisson_lambda=3.0), VOCABULARY, rng_for(0, 0, 0)).count(
        VOCABULARY.mask
    )
    assert 600 / 3.0 * 0.85 < masks < 600 / 3.0 * 1.15  # 600 hidden words in spans of three


def test_kept_and_random_spans() -> None:
    plain = [token for word in WORDS for token in word]
    assert shown(SpecOptions(keep_ratio=1.0, mask_length="word")) == plain
    mixed = shown(SpecOptions(random_ratio=1.0, mask_length="subword", mask_ratio=1.0))
    assert len(mixed) == len(plain) and mixed != plain
    assert all(VOCABULARY.unk < token < VOCABULARY.mask for token in mixed)


def test_score_and_bad_values() -> None:
    spec = get_spec("infilling")
    assert spec.score(["a b", "c"], ["a b", "d"], SpecOptions()) == {"accuracy": 0.5}
    with pytest.raises(DataError, match=r"texts\.tsv, line 3, column 'text'"):
        spec.examples(row(" "), MEDIA, SpecOptions(), VOCABULARY)
    for wrong, message in (
        ({"mask_ratio": 1.5}, "mask_ratio must be at least 0 and at most 1"),
        ({"mask_length": "span"}, "Did you mean 'span-poisson'"),
        ({"replace_length": 2}, "replace_length '2' is not one of 1, 0, -1"),
        ({"random_ratio": 0.6, "keep_ratio": 0.6}, "together exceed 1"),
        ({"poisson_lambda": 0.0}, "poisson_lambda"),
    ):
        with pytest.raises(ConfigError, match=message):
            SpecOptions(**wrong)  # type: ignore[arg-type]
