"""A task of one's own in one file: how many things of a kind are in the picture?

    UNIVAL_PLUGINS=docs/examples/counting.py unival train recipe.yaml     (task: counting)

Tables have the columns ``image``, ``thing`` and ``count``.
"""

from __future__ import annotations

from dataclasses import dataclass

from unival.core.options import option
from unival.specs import Field, SpecOptions, register
from unival.specs.answers import AnswerSpec, encode_answer
from unival.specs.base import bad_value, compose, row_id, text_of
from unival.specs.inputs import load_media, media_field
from unival.specs.offer import Offer


@dataclass(frozen=True)
class CountingOptions(SpecOptions):
    """The options of every task, and one more."""

    most_things: int = option(20, "the largest number that is an answer", least=1)


@register
class CountingSpec(AnswerSpec):
    """``how many circles are there?`` -> a number from 0 to ``most_things``, the best of all."""

    name = "counting"
    best_metric = "accuracy"
    inference = "allcand"
    options_class = CountingOptions
    offer = Offer("Count the things of a kind in an image.", "Count", "Things, in the plural")

    @property
    def fields(self):
        thing = Field("thing", True, "what is counted, in the plural")
        return media_field("image"), thing, Field("count", True, "a whole number", target=True)

    def candidates(self, options):
        return tuple(str(number) for number in range(options.most_things + 1))

    def reference(self, row, options):
        count = row.get("count")
        if count is None:
            return None
        if str(count) not in self.candidates(options):
            raise bad_value(
                row, "count", f"expected a whole number from 0 to {options.most_things}, got {count!r}"
            )
        return str(count)

    def examples(self, row, media, options, vocabulary, rng=None, training=False):
        count = self.reference(row, options)
        source = vocabulary.encode(f" how many {text_of(row, 'thing').strip()} are there?")
        target = encode_answer(vocabulary, count) if count is not None else []
        allowed = self.allowed_lists(options, vocabulary, count)
        loaded = load_media(row, "image", media, options, rng, training)
        return [
            compose(
                row_id(row), source, target, vocabulary, options, "none", allowed, reference=count, **loaded
            )
        ]

    def score(self, predictions, references, options, ids=None):
        pairs = [(int(p), int(r)) for p, r in zip(predictions, references, strict=True)]
        return {
            "accuracy": sum(p == r for p, r in pairs) / len(pairs),
            "mean_error": sum(abs(p - r) for p, r in pairs) / len(pairs),
        }
