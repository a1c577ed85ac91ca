"""One call of a predictor: its inputs and texts as rows, and the batches made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from unival.errors import ConfigError, DataError
from unival.media import MediaError
from unival.media.inputs import RememberingLoader, as_reference, describe, modality_of
from unival.media.loader import MediaLoader
from unival.media.source import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from unival.batching.batch import Example
    from unival.predict.inference import Inference

T = TypeVar("T")


class Call:
    """The inputs and texts of one call, row by row."""

    def __init__(self, media: Any, texts: dict[str, Any], limits: Limits = DEFAULT_LIMITS) -> None:
        lists = [text for text in texts.values() if isinstance(text, list)]
        given = media if isinstance(media, list) else None
        self.several = given is not None or bool(lists)
        counts = {len(one) for one in (*lists, *([given] if given is not None else []))}
        if len(counts) > 1:
            raise ConfigError(
                f"lists of {' and '.join(map(str, sorted(counts)))} entries do not fit: give one text for all "
                "inputs, or one per input"
            )
        self.count = counts.pop() if counts else 1
        self.media: list[Any] = []
        for index, one in enumerate([] if media is None else given if given is not None else [media]):
            with self._at(index, given is not None):
                self.media.append(as_reference(one))
        self.places = list(range(self.count)) if given is not None else [0] * self.count
        remember = given is None and self.count > 1
        self.loader = RememberingLoader(limits=limits) if remember else MediaLoader(limits=limits)
        self._listed = given is not None
        self.texts = [
            {
                name: self._text(name, row, text[row] if isinstance(text, list) else text)
                for name, text in texts.items()
            }
            for row in range(self.count)
        ]

    def __len__(self) -> int:
        return self.count

    def _text(self, name: str, row: int, text: Any) -> str:
        if not isinstance(text, str) or not text.strip():
            place = f"item {row}: " if self.several else ""
            raise DataError(f"{place}{name} must be a text with at least one word, got {text!r}"[:200])
        return text

    @contextmanager
    def _at(self, index: int, listed: bool) -> Iterator[None]:
        """Put the number of the list item in front of an error about its medium or its text."""
        try:
            yield
        except MediaError as error:
            if not listed:
                raise
            raise MediaError(f"item {index}: {error.source}", error.reason) from error
        except (DataError, ConfigError) as error:
            if not listed:
                raise
            raise type(error)(f"item {index}: {error}") from error

    def medium(self, row: int) -> Any:
        return self.media[self.places[row]]

    def groups(self, task: str, asked: str | None, available: tuple[str, ...]) -> dict[str, list[int]]:
        """Rows by modality. Raises ConfigError where the task, or a model with those ``available``, takes
        none of it."""
        from unival.specs import get_spec

        groups: dict[str, list[int]] = {}
        for row in range(self.count):
            with self._at(row, self._listed):
                kind = modality_of(self.medium(row), asked)
                get_spec(task, kind)
                if kind not in available:
                    has = ", ".join(available) or "text only"
                    raise ConfigError(
                        f"{describe(self.medium(row))}: the checkpoint has no {kind} network (it has: {has})"
                    )
            groups.setdefault(kind, []).append(row)
        return groups

    def batches(self, rows: list[int], size: int) -> list[list[int]]:
        """Rows in batches of similar text length."""
        ordered = sorted(rows, key=lambda row: sum(map(len, self.texts[row].values())))
        return [ordered[i : i + size] for i in range(0, len(ordered), size)]

    def batch(self, decoder: Inference, rows: list[int]) -> dict[str, Any]:
        """Decode the media of some rows and collate them; rows about one medium share its tensor."""
        from unival.batching.batch import collate

        examples: list[Example] = []
        shared: dict[int, Example] = {}
        for row in rows:
            example = self._example(decoder, row)
            example.media = shared.setdefault(self.places[row], example).media
            examples.append(example)
        return collate(examples, pad=decoder.vocabulary.pad)

    def source(self, decoder: Inference, replaced: bool, rows: list[int]) -> dict[str, Any]:
        """Collate rows for the encoder alone; their text replaces the task's prompt if ``replaced``."""
        from unival.batching.batch import collate
        from unival.specs.base import compose

        vocabulary, examples = decoder.vocabulary, []
        for row in rows:
            example = self._example(decoder, row) if self.media else None
            if replaced:
                ids = vocabulary.encode(f" {self.texts[row]['text'].strip()}")
                rest: dict[str, Any] = (
                    {"modality": example.modality, "media": example.media} if example is not None else {}
                )
                example = compose(str(row), ids, [], vocabulary, decoder.options, **rest)
            assert example is not None
            examples.append(example)
        return collate(examples, pad=vocabulary.pad)

    def _example(self, decoder: Inference, row: int) -> Example:
        from unival.specs.preparation import prepare_row
        from unival.tables.row import Row

        options = decoder.options
        values = {"id": str(row), **self.texts[row]}
        if self.media:
            values[decoder.spec.modality] = self.medium(row)
        asked = Row(values, "input", row + 1)
        with self._at(row, self._listed):
            return prepare_row(
                decoder.spec, asked, row, self.loader, options, decoder.vocabulary, seed=options.seed
            )[0]


def ahead(prepare: Callable[[list[int]], T], batches: list[list[int]]) -> Iterator[tuple[list[int], T]]:
    """Yield (rows, prepared batch); while one is in use, a thread prepares the next."""
    if len(batches) < 2:
        for rows in batches:
            yield rows, prepare(rows)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(prepare, batches[0])
        for rows, following in zip(batches, [*batches[1:], None], strict=True):
            ready = coming.result()
            if following is not None:
                coming = pool.submit(prepare, following)
            yield rows, ready
