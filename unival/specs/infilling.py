"""Text infilling: restore a text of which spans of words are hidden. No medium; an optional stream of pretraining.

The paper (appendix F) names unimodal data as what keeps a model good at text; the objective is BART's (Lewis et
al., 2020), the prompt and the defaults are OFA's, which the reference still lists as options without a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from unival.batching.batch import Example
from unival.core.seeding import rng_for
from unival.media.loader import MediaLoader
from unival.specs.base import EVALUATION, Field, TaskSpec, bad_value, compose, row_id, text_of
from unival.specs.options import SpecOptions
from unival.specs.scoring import label_score
from unival.tables.row import Row
from unival.vocabulary.cleaning import clean_caption
from unival.vocabulary.prompts import prompt
from unival.vocabulary.vocabulary import Vocabulary

_TEXT = "\0"  # stands for the text in a filled prompt: masks are tokens, not characters


class InfillingSpec(TaskSpec):
    """`` what is the complete text of " a <mask> circle "?`` -> ``a red circle``.

    ``mask_ratio`` of the words are hidden. ``mask_length`` says in which pieces: "span-poisson" (spans of a
    Poisson number of words, a span of none hides nothing and shows a mask all the same), "word", or "subword"
    (single tokens). ``replace_length`` 1 shows one mask for a span, -1 one for each of its tokens, 0 none.
    With probability ``random_ratio`` a span is shown as random tokens, with ``keep_ratio`` as it is.
    Evaluation hides the same words every time.
    """

    name = "infilling"
    modalities = ("text",)
    best_metric = "accuracy"
    right_metric = "accuracy"
    reads_media = False
    generation: ClassVar[dict[str, Any]] = {"beam": 1, "max_len_a": 0, "max_len_b": 128}

    def __init__(self, modality: str = "text") -> None:
        super().__init__(modality)

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("text", True, "the text to learn", target=True),)

    def reference(self, row: Row, options: SpecOptions) -> str:
        return clean_caption(text_of(row, "text"), options.max_src_length)

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        text = self.reference(row, options)
        if not text:
            raise bad_value(row, "text", "expected a text with at least one word")
        words = [vocabulary.encode(f" {word}") for word in text.split()]
        if rng is None or not training:
            rng = rng_for(options.seed, 0, row.line, EVALUATION)
        before, after = prompt("infilling", options.prompts, text=_TEXT).split(_TEXT)
        # the blank in front of the text belongs to its first word
        source = vocabulary.encode(before.removesuffix(" ")) + noised(words, options, vocabulary, rng)
        source += vocabulary.encode(after)
        return [compose(row_id(row), source, _joined(words), vocabulary, options, reference=text)]

    def score(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Return ``accuracy``: the share of texts that are restored to the letter."""
        return label_score(self.best_metric, predictions, references)


def noised(
    words: Sequence[Sequence[int]], options: SpecOptions, vocabulary: Vocabulary, rng: np.random.Generator
) -> list[int]:
    """Hide words of a text: token ids per word in, token ids of the source out.

    Spans are laid at random into the gaps between the words that stay.
    """
    units = list(words) if options.mask_length != "subword" else [[token] for token in _joined(words)]
    lengths = _span_lengths(len(units), options, rng)
    gaps = rng.integers(0, len(units) - sum(lengths) + 1, size=len(lengths))
    out: list[int] = []
    position = stayed = 0
    for gap, length in zip(sorted(gaps.tolist()), lengths, strict=True):
        out += _joined(units[position : position + gap - stayed])
        position += gap - stayed
        stayed = gap
        out += _shown(_joined(units[position : position + length]), options, vocabulary, rng)
        position += length
    return out + _joined(units[position:])


def _span_lengths(count: int, options: SpecOptions, rng: np.random.Generator) -> list[int]:
    """Lengths of spans that together hide ``mask_ratio`` of ``count`` units."""
    left = int(np.ceil(count * options.mask_ratio))
    if options.mask_length != "span-poisson":
        return [1] * left
    lengths: list[int] = []
    while left > 0:
        lengths.append(min(left, int(rng.poisson(options.poisson_lambda))))
        left -= lengths[-1]
    return [int(length) for length in rng.permutation(lengths)]


def _shown(
    hidden: list[int], options: SpecOptions, vocabulary: Vocabulary, rng: np.random.Generator
) -> list[int]:
    """What the source shows for a span."""
    draw = rng.random()
    if draw < options.keep_ratio:
        return hidden
    count = len(hidden) if options.replace_length < 0 else options.replace_length
    if draw < options.keep_ratio + options.random_ratio:
        # text tokens lie between the specials and <mask>
        return rng.integers(vocabulary.unk + 1, vocabulary.mask, size=count).tolist()
    return [vocabulary.mask] * count


def _joined(units: Sequence[Sequence[int]]) -> list[int]:
    return [token for unit in units for token in unit]
