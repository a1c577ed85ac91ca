"""Captioning of images, videos and audio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from unival.batching.batch import Asked, Example
from unival.core.modalities import NAMES
from unival.media.loader import MediaLoader
from unival.specs.base import Field, TaskSpec, bad_value, compose, is_absent, plain_text, row_id, shorten
from unival.specs.inputs import load_media, media_field, media_id
from unival.specs.offer import Offer
from unival.specs.options import SpecOptions
from unival.specs.scoring import caption_score
from unival.tables.row import Row
from unival.vocabulary.cleaning import SEPARATOR, split_joined, strip_punctuation
from unival.vocabulary.prompts import prompt
from unival.vocabulary.vocabulary import Vocabulary


class CaptionSpec(TaskSpec):
    """``what does the image describe?`` -> a caption (paper table 1; reference behaviour).

    Targets lose their punctuation but keep their case. Training keeps ``max_tgt_length`` words of one
    reference, drawn by ``rng``; without ``rng`` the whole field counts as one caption, as in the reference.
    Evaluation targets keep all references, joined by ``&&``. The default prompt of audio asks about "the
    audio"; the released audio checkpoints were finetuned with the video prompt: replace the prompt
    ``caption.audio`` for them. Rows of one medium share an id, so that scores join their references.
    """

    name = "caption"
    modalities = NAMES
    best_metric = "cider"
    joins_ids = True
    generation: ClassVar[dict[str, Any]] = {"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}
    official = "caption"
    offer = Offer("Describe an image, a video or a sound.", "Describe", method="caption")

    @property
    def fields(self) -> tuple[Field, ...]:
        caption = Field(
            "caption", True, "caption; several references joined by && (or a JSON list)", target=True
        )
        return media_field(self.modality), caption

    @property
    def layout_name(self) -> str:
        return "caption" if self.modality == "image" else f"{self.modality}_caption"

    def reference(self, row: Row, options: SpecOptions) -> list[str] | None:
        return captions_of(row, "caption")

    def item_id(self, row: Row) -> str:
        return row_id(row, media_id(row, self.modality))

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        captions = captions_of(row, "caption", required=training)
        loaded = load_media(row, self.modality, media, options, rng, training)
        text = ""
        if captions and training and rng is not None:
            text = strip_punctuation(captions[rng.integers(len(captions))], options.max_tgt_length)
        elif captions and training:
            text = strip_punctuation(" ".join(captions), options.max_tgt_length)
        elif captions:
            text = SEPARATOR.join(strip_punctuation(caption) for caption in captions)
        if captions and not text.replace(SEPARATOR, ""):
            raise bad_value(row, "caption", "expected a caption with at least one word")
        return [
            compose(
                self.item_id(row),
                vocabulary.encode(prompt(f"caption.{self.modality}", options.prompts)),
                vocabulary.encode(f" {text}") if text else [],
                vocabulary,
                options,
                reference=captions,
                **loaded,
            )
        ]

    def decode(
        self,
        tokens: Any,
        example: Asked | None,
        vocabulary: Vocabulary,
        options: SpecOptions | None = None,
    ) -> str:
        """Return the caption, without punctuation (reference behaviour) unless the protocol is "official"."""
        text = super().decode(tokens, example, vocabulary, options)
        return text if options is not None and options.protocol == "official" else strip_punctuation(text)

    def score(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        return caption_score(predictions, references, ids)

    def baselines(
        self,
        train_rows: Iterable[Row],
        eval_rows: Iterable[Row],
        options: SpecOptions,
        media: MediaLoader | None = None,
    ) -> dict[str, dict[str, float]]:
        """Score two constant captions: the most frequent and the best one of the training rows."""
        from unival.specs.baselines import caption_baselines

        return caption_baselines(self, train_rows, eval_rows, options)

    def answer_of(self, reference: list[str]) -> str:
        return strip_punctuation(reference[0])


def captions_of(row: Row, column: str, required: bool = False) -> list[str] | None:
    """Return the captions of a column, None when the row has no such column and it is not ``required``.

    DataError when the column is there but holds no caption.
    """
    value = row[column] if required else row.get(column)
    if value is None and not required:
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    captions = []
    for part in parts:
        if part is None or (is_absent(part) and part is value):
            continue
        text = plain_text(part)
        if text is None:
            raise bad_value(row, column, f"expected a caption or a list of captions, got {shorten(part)}")
        captions += split_joined(text)
    if not captions:
        raise bad_value(row, column, "expected a caption with at least one word, the field is empty")
    return captions
