"""What a task is: fields, prompt, target, constraint, decoding, score. No training engine in sight.

Training, evaluation, prediction and the demo all prepare and read their rows through one ``TaskSpec``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from unival.batching.batch import Asked, Example
from unival.errors import ConfigError, DataError
from unival.media.loader import MediaLoader
from unival.specs.offer import Offer
from unival.specs.options import SpecOptions
from unival.specs.scoring import best_references
from unival.tables.base import Table
from unival.tables.layouts import Layout, get_layout
from unival.tables.row import Row
from unival.vocabulary.cleaning import SEPARATOR
from unival.vocabulary.vocabulary import Vocabulary

EVALUATION = "evaluation"  # purpose of the random choices that evaluation makes when asked to


@dataclass(frozen=True)
class Field:
    """A named column. ``target`` fields are what the model is to produce: rows without them can be
    predicted but neither trained on nor scored. ``words``: it holds text that the model reads or writes, from which
    a vocabulary can be made."""

    name: str
    required: bool
    description: str
    target: bool = False
    words: bool = True


class TaskSpec(ABC):
    """One task on one modality. Stateless but for caches; share one object among all rows.

    Class attributes: ``name``; ``modalities`` it makes sense on; ``best_metric``, the key of ``score`` that
    picks the best checkpoint; ``generation``, default decoding settings (fairseq's names); ``inference``,
    "beamsearch" or "allcand" (every candidate of the constraint is scored); ``joins_ids``: rows with one id
    (all captions of an image) are one item with several references, predicted once; ``reads_media``: a row's
    medium is input of the model; ``reranks``: :meth:`rerank` chooses among all outputs of a row; ``right_metric``:
    key of ``score`` that is above 0 for a right output and 0 for a wrong one, None where there is no such thing;
    ``options_class``: the options it reads, a frozen dataclass that adds fields to ``SpecOptions`` or that itself;
    ``offer``: how it is asked in a page and a service, None: it is not; ``official``: the kind of official files that
    hold its predictions and references (``unival.metrics.io.FORMATS``); ``reference_options``: those of its own
    options that the reference's task knows too.
    """

    name: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]] = ("image",)
    best_metric: ClassVar[str]
    generation: ClassVar[dict[str, Any]] = {"beam": 5}
    inference: ClassVar[str] = "beamsearch"
    joins_ids: ClassVar[bool] = False
    reads_media: ClassVar[bool] = True
    reranks: ClassVar[bool] = False
    right_metric: ClassVar[str | None] = None
    options_class: ClassVar[type[SpecOptions]] = SpecOptions
    offer: ClassVar[Offer | None] = None
    official: ClassVar[str | None] = None
    reference_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, modality: str = "image") -> None:
        if modality not in self.modalities:
            raise ConfigError(
                f"task '{self.name}' has no modality '{modality}'; it works on {', '.join(self.modalities)}"
            )
        self.modality = modality

    @property
    @abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """Columns of a table with named fields."""

    @property
    def asked(self) -> tuple[Field, ...]:
        """What a row must say beside its medium and its target: a question, a phrase, nothing."""
        return tuple(f for f in self.fields if f.required and not f.target and f.name != self.modality)

    @property
    def answer(self) -> Field | None:
        """The field that a prediction fills, None where there is no one such field."""
        return next((f for f in self.fields if f.target), None)

    @property
    def layout_name(self) -> str | None:
        """Name of the reference's TSV layout in ``unival.tables.LAYOUTS``, None where it has none."""
        return None

    @property
    def layout(self) -> Layout | None:
        """Columns of the reference's TSV files."""
        return None if self.layout_name is None else get_layout(self.layout_name)

    @abstractmethod
    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        """Prepare one row. Training without ``rng`` takes every random choice's first option.

        Raises DataError (file, line, column) for a row that cannot be used and MediaError for media that
        cannot be decoded.
        """

    @abstractmethod
    def reference(self, row: Row, options: SpecOptions) -> Any:
        """Return what a prediction for ``row`` is compared with, or None when the row carries none."""

    def item_id(self, row: Row) -> str:
        """Return the id of a row's example, without loading its media."""
        return row_id(row)

    def modality_of(self, row: Row) -> str | None:
        """Return the modality of a row's medium, None for a task on text alone."""
        return self.modality if self.reads_media else None

    def prepare(self, rows: Sequence[Row], options: SpecOptions) -> None:
        """Look at the training table once before its rows are prepared; most tasks need nothing from it."""
        return

    def check(self, rows: Table | Sequence[Row]) -> None:
        """Look at a sample of a table for what no single row can show. Raises DataError."""
        return

    def constraint(self, options: SpecOptions, vocabulary: Vocabulary) -> Any:
        """What decoding may produce: a Trie of answers, a range (start, end) of token ids, or None."""
        return None

    def candidates(self, options: SpecOptions) -> tuple[str, ...] | None:
        """Return the closed list of answers that ranking scores, if the task has one."""
        return None

    def decode(
        self,
        tokens: Iterable[int],
        example: Asked | None,
        vocabulary: Vocabulary,
        options: SpecOptions | None = None,
    ) -> Any:
        """Turn generated tokens (a forced prefix included) into text or a box."""
        return vocabulary.decode(without_prefix(tokens, example)).strip()

    def decoding(self, options: SpecOptions) -> dict[str, Any]:
        """Return the default decoding settings, where they depend on the options."""
        return dict(self.generation)

    def rerank(
        self,
        decoded: list[tuple[Any, float]],
        batch: Mapping[str, Any],
        row: int,
        options: SpecOptions,
        device: str,
    ) -> list[tuple[int, Any, float]]:
        """Order the decoded hypotheses (output, score) of a row of a batch: (place, output, score), best first."""
        return [(place, *pair) for place, pair in enumerate(decoded)]

    @abstractmethod
    def score(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Return metric name -> value; ``predictions`` are what ``decode`` returns, paired by position."""

    def whole_set(
        self, predictions: Sequence[Any], references: Sequence[Any], options: SpecOptions
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return metrics that are no mean over rows, such as FID, and what they were computed with."""
        return {}, {}

    def baseline(
        self,
        train_rows: Iterable[Row],
        eval_rows: Iterable[Row],
        options: SpecOptions,
        media: MediaLoader | None = None,
    ) -> dict[str, float]:
        """Score the trivial predictor that always gives the training rows' most frequent target."""
        from unival.specs.baselines import constant_baseline

        return constant_baseline(self, train_rows, eval_rows, options)

    def baselines(
        self,
        train_rows: Iterable[Row],
        eval_rows: Iterable[Row],
        options: SpecOptions,
        media: MediaLoader | None = None,
    ) -> dict[str, dict[str, float]]:
        """Return the scores of all trivial predictors by what they always say; :meth:`baseline` is the first."""
        from unival.specs.baselines import MOST_FREQUENT

        return {MOST_FREQUENT: self.baseline(train_rows, eval_rows, options, media)}

    def answer_of(self, reference: Any) -> str:
        """Return the one text of a reference that the trivial baseline counts."""
        return str(reference)

    def best_outputs(self, references: Sequence[Any]) -> list[Any]:
        """Return for each reference the output that scores best among those it holds."""
        if self.joins_ids:
            return best_references(references)
        return [self.answer_of(reference) for reference in references]


@contextmanager
def located(row: Row, column: str) -> Iterator[None]:
    """Add file, line and column to a DataError raised inside."""
    try:
        yield
    except DataError as error:
        if error.path is not None:
            raise
        raise DataError(error.expected, path=row.path, line=row.line, column=column) from error


def bad_value(row: Row, column: str, expected: str) -> DataError:
    """Build the error of a value that is there but cannot be used."""
    return DataError(expected, path=row.path, line=row.line, column=column)


def is_absent(value: Any) -> bool:
    """Whether a cell is left out: null, blank, or NaN, which is how tables written by programs spell it."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def plain_text(value: Any) -> str | None:
    """Return a text, or a finite number as text; None for a value that is neither (a switch, a list, ...)."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return str(value)


def text_of(row: Row, column: str) -> str:
    """Return a required text column; DataError when it is missing, not text, or blank."""
    value = row[column]
    if is_absent(value):
        raise bad_value(row, column, "expected text, the field is empty")
    text = plain_text(value)
    if text is None:
        raise bad_value(row, column, f"expected text, got {shorten(value)}")
    return text


def optional_text(row: Row, column: str) -> str | None:
    """Return a text column, or None when the row has none or leaves it blank; DataError for no text."""
    return None if is_absent(row.get(column)) else text_of(row, column)


def joined_texts(row: Row, column: str) -> str:
    """Return a column of names joined by ``&&``, "" when the row has none; a JSON list counts as joined."""
    value = row.get(column)
    if not isinstance(value, list):
        return optional_text(row, column) or ""
    names = [plain_text(name) for name in value if not is_absent(name)]
    if None in names:
        raise bad_value(row, column, f"expected a list of texts, got {shorten(value)}")
    return SEPARATOR.join(str(name) for name in names)


def row_id(row: Row, fallback: str | None = None) -> str:
    """Return the row's ``id`` column, else ``fallback``, else ``file:line``."""
    value = optional_text(row, "id")
    return value or fallback or f"{str(row.path).replace(chr(92), '/').rsplit('/', 1)[-1]}:{row.line}"


def shorten(value: object, limit: int = 60) -> str:
    """Show a value in a message without printing a whole base64 picture."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def without_prefix(tokens: Iterable[int], example: Asked | None) -> list[int]:
    """Drop the forced prefix of ``example`` from generated tokens."""
    ids = [int(token) for token in tokens]
    prefix = example.prefix.tolist() if example is not None else []
    return ids[len(prefix) :] if prefix and ids[: len(prefix)] == prefix else ids


def compose(
    identifier: str,
    source: list[int],
    target: list[int],
    vocabulary: Vocabulary,
    options: SpecOptions,
    prompt_type: str = "none",
    allowed_lists: Callable[[list[int]], list[list[int]]] | None = None,
    **rest: Any,
) -> Example:
    """Build an Example from source and target ids without specials.

    ``prompt_type`` says what the decoder begins with (reference behaviour): nothing, the whole source
    ("src", with its eos) or the source without eos ("prev_output"); those positions are not scored.
    ``allowed_lists`` gives the tokens that a constraint permits at each target position.
    """
    bos, pad, eos = vocabulary.bos, vocabulary.pad, vocabulary.eos
    source = [bos, *source[: options.max_source_positions - 2], eos]
    prompt = {"none": [bos], "src": source, "prev_output": source[:-1]}[prompt_type]
    target = target[: max(options.max_target_positions - len(prompt), 0)]
    unscored = len(prompt) - 1
    allowed: list[list[int]] | None = None
    if allowed_lists is not None:
        allowed = [[] for _ in range(unscored)] + allowed_lists([*target, eos])
    return Example(
        id=identifier,
        source=torch.tensor(source),
        target=torch.tensor([pad] * unscored + target + [eos]),
        prev_output=torch.tensor(prompt + target),
        prefix=torch.tensor(prompt[1:], dtype=torch.int64),
        allowed=allowed,
        **rest,
    )
