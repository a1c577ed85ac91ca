"""Referring expressions: a text to its region, and a region to its text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unival.batching.batch import Asked, Example
from unival.errors import DataError, UnivalError
from unival.media.loader import MediaLoader
from unival.specs.base import (
    Field,
    TaskSpec,
    bad_value,
    compose,
    is_absent,
    located,
    row_id,
    text_of,
    without_prefix,
)
from unival.specs.caption import captions_of
from unival.specs.inputs import augmenting, kept_features, media_field, media_reference, read_image
from unival.specs.offer import Offer
from unival.specs.options import SpecOptions
from unival.specs.scoring import caption_score, need_references
from unival.tables.base import Table
from unival.tables.row import Row
from unival.vocabulary.boxes import (
    Box,
    are_shares,
    dequantise,
    inside,
    not_shares,
    parse_box,
    quantise,
    scale,
)
from unival.vocabulary.cleaning import clean_caption
from unival.vocabulary.prompts import prompt
from unival.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from unival.media.transforms_image import Grounded

_TEXT = Field("text", True, "the phrase that names the region")
_BOX = Field("box", True, "x0,y0,x1,y1 in pixels of the stored image", words=False)


def box_of(row: Row, column: str = "box") -> Box | None:
    """Return the box of a row in original pixels, None when the row has no such column or leaves it blank."""
    value = row.get(column)
    if is_absent(value):
        return None
    with located(row, column):
        return parse_box(value)


def check_units(rows: Table | Sequence[Row], column: str = "box") -> None:
    """Refuse a table whose boxes are shares of the image's sides, by a sample of its rows.

    A single box of less than a pixel is legal (reference behaviour); a table of nothing else is in another unit.
    """
    held = [row for row in sample_rows(rows) if not is_absent(row.get(column))]
    try:
        boxes = [parse_box(row[column]) for row in held]
    except DataError:
        return  # its row says what is wrong with it
    if boxes and all(map(are_shares, boxes)):
        with located(held[0], column):
            not_shares(boxes[0])


def sample_rows(rows: Table | Sequence[Row], most: int = 32) -> list[Row]:
    """Return at most ``most`` evenly spaced rows that can be read."""
    step = max(1, -(-len(rows) // most))
    found = []
    for number in range(0, len(rows), step):
        with suppress(UnivalError):
            found.append(rows[number])
    return found


def ground_image(
    row: Row,
    box: Box | None,
    media: MediaLoader,
    options: SpecOptions,
    num_bins: int,
    rng: np.random.Generator | None = None,
    training: bool = False,
    *,
    column: str = "image",
    box_column: str = "box",
    pretraining: bool = False,
) -> tuple[dict[str, Any], Box | None, list[int]]:
    """Load an image with its box: (Example fields, box clipped to the image, bins of the box).

    Pretraining crops around the box when augmentation is on; finetuning resizes the whole image. The bins
    span ``max_image_size`` pixels. Without a box there are no bins.
    """
    from unival.media import transforms_image

    reference = media_reference(row, column)
    cropped = box is not None and training and rng is not None and pretraining and augmenting(options, True)
    place, known = kept_features("image", reference, media, options, cropped, drawn=False, resize=True)
    image, original = (None, known["size"]) if known else read_image(media, reference, options, resize=True)
    mean, std = transforms_image.normalisation(options.imagenet_default_mean_and_std)
    size, span = options.patch_image_size, options.max_image_size
    if box is not None:
        with located(row, box_column):
            box = inside(box, original)
    how: dict[str, Any] = {"backend": options.resize_backend, "original": original}
    grounded: Grounded
    if image is None:
        grounded = transforms_image.grounding_known(known["media"], original, size, span)
    elif cropped:
        assert box is not None
        grounded = transforms_image.grounding_train(
            image, box, size, span, rng, mean, std, region_crop=True, **how
        )
    else:
        grounded = transforms_image.grounding_eval(image, box, size, span, mean, std, **how)
    bins: list[int] = []
    if box is not None:
        # the crop moves the box; without it, float32 ratios give the reference's bins
        network_box = grounded.box if cropped and grounded.box is not None else scale(box, grounded.resize)
        bins = quantise(network_box, span, num_bins)
    fields = {"modality": "image", "media": grounded.image, "size": original, "resize": grounded.resize}
    fields |= {"kept": image is None, "place": replace(place, size=original) if place else None}
    return fields, box, bins


class GroundingSpec(TaskSpec):
    """``which region does the text " ... " describe?`` -> four bins (reference behaviour)."""

    name = "grounding"
    best_metric = "score"
    right_metric = "score"
    generation: ClassVar[dict[str, Any]] = {"beam": 5, "min_len": 4, "max_len_a": 0, "max_len_b": 4}
    official = "grounding"
    reference_options = ("max_image_size", "acc_thresh")
    offer = Offer(
        "Find the region of an image that a phrase names.", "Find", "What to find", "box", method="ground"
    )

    @property
    def fields(self) -> tuple[Field, ...]:
        return media_field("image"), _TEXT, replace(_BOX, target=True)

    @property
    def layout_name(self) -> str:
        return "grounding"

    def reference(self, row: Row, options: SpecOptions) -> Box | None:
        return box_of(row)

    def check(self, rows: Table | Sequence[Row]) -> None:
        check_units(rows)

    def constraint(self, options: SpecOptions, vocabulary: Vocabulary) -> tuple[int, int]:
        """Return the token range of the bins, for decoding; training is unconstrained."""
        return vocabulary.bin_offset, vocabulary.bin_offset + vocabulary.num_bins

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        text = clean_caption(text_of(row, "text"), options.max_src_length)
        box = box_of(row)
        if box is None and training:
            raise bad_value(row, "box", "expected a box as four numbers 'x0,y0,x1,y1', the field is empty")
        fields, box, bins = ground_image(row, box, media, options, vocabulary.num_bins, rng, training)
        return [
            compose(
                row_id(row),
                vocabulary.encode(prompt("grounding", options.prompts, text=text)),
                [vocabulary.bin_id(b) for b in bins],
                vocabulary,
                options,
                reference=box,
                **fields,
            )
        ]

    def decode(
        self,
        tokens: Iterable[int],
        example: Asked | None,
        vocabulary: Vocabulary,
        options: SpecOptions | None = None,
    ) -> Box | None:
        """Return the box in pixels of the original image (network pixels without an example's ``resize``).

        None when the tokens are not four bins.
        """
        options = options or SpecOptions()
        kept = [token for token in without_prefix(tokens, example) if token > vocabulary.unk]
        bins = vocabulary.decode_box(kept)
        if bins.shape != (4,) or bins.min() < 0:
            return None
        resize = example.resize if example is not None and example.resize is not None else (1.0, 1.0)
        x0, y0, x1, y1 = dequantise(bins, resize, options.max_image_size, vocabulary.num_bins).tolist()
        return x0, y0, x1, y1

    def score(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """score: share of boxes whose IoU reaches ``acc_thresh``; mean_iou. A missing box counts as wrong."""
        from unival.metrics import box_accuracy

        need_references(references, ids)
        corpus = box_accuracy(list(predictions), list(references), (options.acc_thresh,)).corpus
        return {"score": float(next(iter(corpus.values()))), "mean_iou": float(corpus["mean_iou"])}

    def baseline(
        self,
        train_rows: Iterable[Row],
        eval_rows: Iterable[Row],
        options: SpecOptions,
        media: MediaLoader | None = None,
    ) -> dict[str, float]:
        """Score a centred box of the training boxes' mean relative size (needs ``media`` for image sizes)."""
        from unival.specs.baselines import CENTRE_BOX, box_baselines

        return box_baselines(self, train_rows, eval_rows, options, media)[CENTRE_BOX]

    def baselines(
        self,
        train_rows: Iterable[Row],
        eval_rows: Iterable[Row],
        options: SpecOptions,
        media: MediaLoader | None = None,
    ) -> dict[str, dict[str, float]]:
        """Score the box in the middle and the whole picture."""
        from unival.specs.baselines import box_baselines

        return box_baselines(self, train_rows, eval_rows, options, media)

    def best_outputs(self, references: Sequence[Any]) -> list[Any]:
        return list(references)


class GroundedCaptionSpec(TaskSpec):
    """``what does the region describe? region: <bins>`` -> the phrase (reference: in pretraining)."""

    name = "grounded_caption"
    best_metric = "cider"
    joins_ids = True
    generation: ClassVar[dict[str, Any]] = {"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}
    official = "caption"

    @property
    def fields(self) -> tuple[Field, ...]:
        return media_field("image"), _BOX, Field("text", True, _TEXT.description, target=True)

    @property
    def layout_name(self) -> str:
        return "grounding"

    def reference(self, row: Row, options: SpecOptions) -> list[str] | None:
        return captions_of(row, "text")

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        texts = captions_of(row, "text", required=training)
        box = box_of(row)
        if box is None:
            raise bad_value(row, "box", "expected a box as four numbers 'x0,y0,x1,y1', the field is empty")
        fields, box, bins = ground_image(row, box, media, options, vocabulary.num_bins, rng, training)
        chosen = int(rng.integers(len(texts))) if texts and training and rng is not None else 0
        text = clean_caption(texts[chosen], options.max_tgt_length) if texts else ""
        return [
            compose(
                row_id(row),
                region_source(bins, vocabulary, options),
                vocabulary.encode(f" {text}") if text else [],
                vocabulary,
                options,
                reference=texts,
                **fields,
            )
        ]

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
        return clean_caption(reference[0])


def region_source(bins: list[int], vocabulary: Vocabulary, options: SpecOptions) -> list[int]:
    """Return the source ids of grounded captioning: the question, then the four bins."""
    question = vocabulary.encode(prompt("grounded_caption", options.prompts))
    return question + [vocabulary.bin_id(b) for b in bins]
