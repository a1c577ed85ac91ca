"""Does a text describe an image, video or audio clip? yes or no."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from unival.batching.batch import Example
from unival.core.modalities import NAMES
from unival.media.loader import MediaLoader
from unival.specs.answers import AnswerSpec, encode_answer, label_of
from unival.specs.base import Field, bad_value, compose, row_id, text_of
from unival.specs.inputs import load_media, media_field
from unival.specs.offer import Offer
from unival.specs.options import SpecOptions
from unival.specs.scoring import label_score
from unival.tables.row import Row
from unival.vocabulary.cleaning import clean_caption
from unival.vocabulary.prompts import prompt
from unival.vocabulary.vocabulary import Vocabulary

YES_NO = ("yes", "no")
_YES_NO_NAMES = {
    "match": "yes",
    "yes": "yes",
    "1": "yes",
    "true": "yes",
    "no-match": "no",
    "mismatch": "no",
    "no": "no",
    "0": "no",
    "false": "no",
}


class LabelSpec(AnswerSpec):
    """Base of tasks whose target is one of a few fixed labels, given in the column ``label``.

    Every label is scored and the best taken ("allcand"); ``prompt_type`` as in question answering.
    """

    best_metric = "accuracy"
    right_metric = "accuracy"
    inference = "allcand"
    generation: ClassVar[dict[str, Any]] = {"beam": 2, "unnormalized": True}
    labels: ClassVar[tuple[str, ...]] = YES_NO
    label_names: ClassVar[dict[str, str]] = _YES_NO_NAMES
    official = "entailment"

    def candidates(self, options: SpecOptions) -> tuple[str, ...]:
        return self.labels

    def reference(self, row: Row, options: SpecOptions) -> str | None:
        return label_of(row, "label", self.label_names)

    def score(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        return label_score(self.best_metric, predictions, references)

    @abstractmethod
    def source_text(self, row: Row, options: SpecOptions) -> str:
        """Return the filled prompt of a row."""

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        label = self.reference(row, options)
        if label is None and training:
            names = ", ".join(self.label_names)
            raise bad_value(row, "label", f"expected one of {names}; the label is missing")
        source = vocabulary.encode(self.source_text(row, options))
        return [
            compose(
                row_id(row),
                source,
                encode_answer(vocabulary, label) if label else [],
                vocabulary,
                options,
                options.prompt_type,
                self.allowed_lists(options, vocabulary, label),
                reference=label,
                **load_media(row, self.modality, media, options, rng, training),
            )
        ]


class MatchingSpec(LabelSpec):
    """``does the image describe " ... "?`` -> yes or no (reference behaviour in pretraining)."""

    name = "matching"
    modalities = NAMES
    offer = Offer("Say whether a text describes an image, a video or a sound.", method="matches")

    @property
    def fields(self) -> tuple[Field, ...]:
        label = Field(
            "label",
            True,
            "match or no-match (also mismatch, yes/no, 1/0, true/false)",
            target=True,
            words=False,
        )
        return media_field(self.modality), Field("text", True, "the text to compare"), label

    def source_text(self, row: Row, options: SpecOptions) -> str:
        text = clean_caption(text_of(row, "text"), options.max_src_length)
        return prompt(f"matching.{self.modality}", options.prompts, text=text)
