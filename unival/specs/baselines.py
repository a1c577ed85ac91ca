"""Trivial predictors that a trained model has to beat."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from unival.errors import ConfigError, DataError
from unival.specs.base import TaskSpec, row_id
from unival.specs.inputs import media_id, media_reference
from unival.specs.options import SpecOptions
from unival.tables.row import Row
from unival.vocabulary.boxes import inside

if TYPE_CHECKING:
    from unival.media.loader import MediaLoader


def constant_baseline(
    spec: TaskSpec, train_rows: Iterable[Row], eval_rows: Iterable[Row], options: SpecOptions
) -> dict[str, float]:
    """Score the most frequent training target, given for every row (ties: first in the alphabet)."""
    counts: Counter[str] = Counter()
    for row in train_rows:
        reference = spec.reference(row, options)
        if reference is not None:
            counts[spec.answer_of(reference)] += 1
    if not counts:
        raise DataError("the training rows carry no targets: there is no most frequent one")
    answer = min(counts, key=lambda text: (-counts[text], text))
    references, ids = [], []
    for row in eval_rows:
        references.append(spec.reference(row, options))
        ids.append(row_id(row, media_id(row, spec.modality)))
    return spec.score([answer] * len(references), references, options, ids)


def centre_box_baseline(
    spec: TaskSpec,
    train_rows: Iterable[Row],
    eval_rows: Iterable[Row],
    options: SpecOptions,
    media: MediaLoader | None,
) -> dict[str, float]:
    """Score a box in the middle of every image, with the training boxes' mean relative width and height.

    Rows that know where their media start are read from there; the training images may lie elsewhere than
    those of evaluation.
    """
    if media is None:
        raise ConfigError("the centre-box baseline needs the media loader, for the sizes of the images")
    loaders: dict[tuple[str | None, str], MediaLoader] = {}
    known: dict[tuple[str | None, str], tuple[int, int]] = {}

    def size_of(row: Row) -> tuple[int, int]:
        reference = media_reference(row, spec.modality)
        key = (row.media_root, reference)
        if key not in known:
            own = (row.media_root, os.path.dirname(os.path.abspath(row.path)))
            loader = (
                media if row.media_root is None else loaders.setdefault(own, type(media)(*own, media.limits))
            )
            known[key] = loader.image_size(reference)
        return known[key]

    sides = []
    for row in train_rows:
        box = spec.reference(row, options)
        if box is not None:
            width, height = size_of(row)
            x0, y0, x1, y1 = inside(box, (width, height))
            sides.append(((x1 - x0) / width, (y1 - y0) / height))
    if not sides:
        raise DataError("the training rows carry no boxes")
    w, h = np.mean(np.asarray(sides), axis=0)
    predictions, references = [], []
    for row in eval_rows:
        width, height = size_of(row)
        half_w, half_h = w * width / 2, h * height / 2
        predictions.append((width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h))
        references.append(spec.reference(row, options))
    return spec.score(predictions, references, options)
