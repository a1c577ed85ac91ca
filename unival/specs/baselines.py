"""Trivial predictors that a trained model has to beat."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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

MOST_FREQUENT, BEST_CAPTION = "the most frequent answer", "the best constant caption"
CENTRE_BOX, WHOLE_PICTURE = "a box in the middle", "the whole picture"
_LOOKED_AT = 2000  # training captions that the best constant one is chosen from
_TRIED, _JUDGES = 20, 200  # of them, the most typical ones are scored exactly, on so many others


def strongest(baselines: Mapping[str, Mapping[str, float]], metric: str) -> tuple[str, dict[str, float]]:
    """Return the trivial predictor with the highest ``metric``: its name and scores; empty ones without any."""
    if not baselines:
        return "", {}
    name = max(baselines, key=lambda name: baselines[name].get(metric, -np.inf))
    return name, dict(baselines[name])


def constant_baseline(
    spec: TaskSpec, train_rows: Iterable[Row], eval_rows: Iterable[Row], options: SpecOptions
) -> dict[str, float]:
    """Score the most frequent training target, given for every row (ties: first in the alphabet)."""
    return _score_constant(spec, most_frequent(_targets(spec, train_rows, options)), eval_rows, options)


def caption_baselines(
    spec: TaskSpec, train_rows: Iterable[Row], eval_rows: Iterable[Row], options: SpecOptions
) -> dict[str, dict[str, float]]:
    """Score two constant captions: the most frequent one, and the one that describes the training rows best.

    A model that gives one sentence for all may choose the latter, which scores well above the former by CIDEr.
    """
    targets, rows = _targets(spec, train_rows, options), list(eval_rows)
    constants = {MOST_FREQUENT: most_frequent(targets), BEST_CAPTION: best_caption(targets)}
    return {name: _score_constant(spec, text, rows, options) for name, text in constants.items()}


def most_frequent(targets: Sequence[str]) -> str:
    """Return the most frequent text (ties: first in the alphabet)."""
    counts = Counter(targets)
    return min(counts, key=lambda text: (-counts[text], text))


def best_caption(captions: Sequence[str]) -> str:
    """Return the caption that gets the highest CIDEr-D when it is given for all of ``captions``.

    At most 2,000 evenly spaced captions are looked at; the 20 nearest to their centre are compared on 200 of them.
    """
    from unival.metrics.cider import cider_d, corpus_frequencies, most_central

    looked_at = _evenly(captions, _LOOKED_AT)
    words = [text.lower().split() for text in looked_at]
    frequencies = corpus_frequencies([[text] for text in words])
    judges = [[text] for text in _evenly(words, _JUDGES)]
    tried = most_central(words, frequencies, _TRIED)
    values = [sum(cider_d([words[k]] * len(judges), judges, frequencies)) for k in tried]
    return looked_at[tried[int(np.argmax(values))]]


def _evenly(items: Sequence[str] | Sequence[list[str]], most: int) -> list:  # type: ignore[type-arg]
    return [
        items[k] for k in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    ]


def _targets(spec: TaskSpec, rows: Iterable[Row], options: SpecOptions) -> list[str]:
    found = (spec.reference(row, options) for row in rows)
    targets = [spec.answer_of(reference) for reference in found if reference is not None]
    if not targets:
        raise DataError("the training rows carry no targets: there is no most frequent one")
    return targets


def _score_constant(
    spec: TaskSpec, answer: str, eval_rows: Iterable[Row], options: SpecOptions
) -> dict[str, float]:
    references, ids = [], []
    for row in eval_rows:
        references.append(spec.reference(row, options))
        ids.append(row_id(row, media_id(row, spec.modality)))
    return spec.score([answer] * len(references), references, options, ids)


def box_baselines(
    spec: TaskSpec,
    train_rows: Iterable[Row],
    eval_rows: Iterable[Row],
    options: SpecOptions,
    media: MediaLoader | None,
) -> dict[str, dict[str, float]]:
    """Score the whole picture, and a box in its middle with the training boxes' mean relative width and height.

    Rows that know where their media start are read from there; the training images may lie elsewhere than
    those of evaluation.
    """
    if media is None:
        raise ConfigError("the baselines of boxes need the media loader, for the sizes of the images")
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
    rows = list(eval_rows)
    references = [spec.reference(row, options) for row in rows]
    sizes = np.asarray([size_of(row) for row in rows], float)
    found = {}
    for name, share in ((CENTRE_BOX, (w, h)), (WHOLE_PICTURE, (1.0, 1.0))):
        half = sizes * share / 2
        boxes = np.concatenate([sizes / 2 - half, sizes / 2 + half], axis=1)
        found[name] = spec.score([tuple(box) for box in boxes.tolist()], references, options)
    return found
