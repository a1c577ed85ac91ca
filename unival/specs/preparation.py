"""One row, prepared: the only place where training, evaluation, merging and use draw for a row."""

from __future__ import annotations

from unival.batching.batch import Example
from unival.core.seeding import rng_for
from unival.media.loader import MediaLoader
from unival.specs.base import EVALUATION, TaskSpec
from unival.specs.options import SpecOptions
from unival.tables.row import Row
from unival.vocabulary.vocabulary import Vocabulary


def prepare_row(
    spec: TaskSpec,
    row: Row,
    number: int,
    media: MediaLoader,
    options: SpecOptions,
    vocabulary: Vocabulary,
    *,
    seed: int,
    training: bool = False,
    epoch: int = 0,
    source: str = "",
) -> list[Example]:
    """Return the examples of row ``number`` of a table.

    What is random is a function of (seed, epoch, number, source) in training and of (seed, number) elsewhere,
    where nothing is drawn unless the options ask for random frames or sounds. So a validation, an evaluation
    and a pass of merging over one table see the same frames, whoever runs them and in whatever order.

    Raises DataError (file, line, column) for a row that cannot be used and MediaError for media that cannot
    be decoded.
    """
    rng = None
    if training:
        rng = rng_for(seed, epoch, number, source)
    elif options.random_evaluation:
        rng = rng_for(seed, 0, number, EVALUATION)
    return spec.examples(row, media, options, vocabulary, rng, training=training)
