"""Tasks whose answers form a closed list: where the list comes from and what it permits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unival.core.safe_pickle import load_plain
from unival.errors import ConfigError, DataError
from unival.specs.base import TaskSpec, bad_value, is_absent, located, plain_text, shorten
from unival.specs.options import SpecOptions
from unival.tables.row import Row
from unival.vocabulary.cleaning import parse_answers
from unival.vocabulary.vocabulary import Vocabulary


class AnswerSpec(TaskSpec):
    """Base of tasks that answer with a short text, from ``candidates`` when there are any.

    The constraint is a trie over the candidates; during training the same trie masks the loss (reference
    behaviour).
    """

    _cached: tuple[SpecOptions, Vocabulary, Any] | None = None

    def constraint(self, options: SpecOptions, vocabulary: Vocabulary) -> Any:
        """Return a ``unival.generate.trie.Trie`` over the candidates, None for open answers."""
        if self._cached is None or self._cached[0] is not options or self._cached[1] is not vocabulary:
            answers = self.candidates(options)
            trie = None
            if answers is not None:
                from unival.generate.trie import Trie

                trie = Trie([encode_answer(vocabulary, answer) for answer in answers], vocabulary.eos)
            self._cached = (options, vocabulary, trie)
        return self._cached[2]

    def allowed_lists(
        self, options: SpecOptions, vocabulary: Vocabulary, answer: str | None
    ) -> Callable[[list[int]], list[list[int]]] | None:
        """Return a function from the target of ``answer`` to the tokens allowed at each position.

        Training and validation use it alike, so that their losses can be compared. None for open answers, and for an
        answer that the closed list lacks: only evaluation meets one, and no list permits its tokens.
        """
        candidates = self.candidates(options)
        if candidates is None or answer not in self._closed(candidates):
            return None
        trie = self.constraint(options, vocabulary)
        return None if trie is None else trie.allowed_lists

    _members: tuple[tuple[str, ...], frozenset[str]] | None = None

    def _closed(self, answers: tuple[str, ...]) -> frozenset[str]:
        if self._members is None or self._members[0] is not answers:
            self._members = (answers, frozenset(answers))
        return self._members[1]


def encode_answer(vocabulary: Vocabulary, answer: str) -> list[int]:
    """Encode an answer as targets are: with a leading blank."""
    return vocabulary.encode(f" {answer}")


def answers_of(row: Row) -> dict[str, float] | None:
    """Return answer -> confidence from ``answers`` or ``answer``, None when the row has neither.

    Text is read by ``unival.vocabulary.cleaning.parse_answers``. In JSONL a list of answers also works
    (confidence relative to the most frequent one), the official list of objects with the key ``answer``, and a
    mapping answer -> confidence. JSON's true and false are the answers "yes" and "no".
    """
    column = "answer" if is_absent(row.get("answers")) else "answers"
    value = row.get(column)
    if is_absent(value):
        return None
    with located(row, column):
        try:
            answers = _read_answers(value)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"expected answers such as '1.0|!+red&&0.3|!+pink', got {shorten(value)}: {error}"
            ) from error
        if not answers:
            raise DataError("expected at least one answer, the field is empty")
    return answers


def _read_answers(value: Any) -> dict[str, float]:
    if isinstance(value, Mapping) and "answer" not in value:
        if any(isinstance(confidence, bool) for confidence in value.values()):
            raise ValueError("confidences are numbers")
        answers = {str(answer).strip(): float(confidence) for answer, confidence in value.items()}
        if not all(0 < confidence <= 1 for confidence in answers.values()):
            raise ValueError("confidences must lie in (0, 1]")
        return answers
    if isinstance(value, Sequence) and not isinstance(value, str):
        said = [one_answer(answer).strip() for answer in value if answer is not None]
        counts = Counter(answer for answer in said if answer)
        most = max(counts.values(), default=1)
        return {answer: count / most for answer, count in counts.items()}
    return parse_answers(one_answer(value))


def one_answer(value: Any) -> str:
    """Return what one person answered: text, a number, JSON's true or false, or the official object that
    holds it under ``answer``. ValueError for anything else."""
    if isinstance(value, Mapping) and "answer" in value:
        value = value["answer"]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = plain_text(value)
    if text is None:
        raise ValueError(f"{shorten(value)} is no answer")
    return text


def human_answers(row: Row) -> list[Any] | None:
    """Return what each person answered, None where the row does not say: the official accuracy counts them.

    A list in ``answers`` or ``answer`` (JSONL), or ``human_answers``, which prepared tables hold as JSON. Raises
    DataError for text in ``human_answers`` that is no JSON list.
    """
    for column in ("answers", "answer"):
        if isinstance(value := row.get(column), list):
            return value
    said = row.get("human_answers")
    if isinstance(said, str) and said:
        try:
            said = json.loads(said)
        except ValueError:
            raise bad_value(row, "human_answers", f"expected a JSON list, got {shorten(said)}") from None
    return said if isinstance(said, list) else None


def label_of(row: Row, column: str, names: Mapping[str, str]) -> str | None:
    """Return the canonical label of a column (``names``: spelling -> canonical), None when absent."""
    value = row.get(column)
    if is_absent(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    label = names.get(str(value).strip().lower())
    if label is None:
        raise bad_value(row, column, f"expected one of {', '.join(names)}, got {shorten(value)}")
    return label


def closed_answers(options: SpecOptions) -> tuple[str, ...] | None:
    """Return the closed list that the options name, None when they name none."""
    if options.answers is not None:
        return options.answers
    if options.ans2label_dict is not None:
        return tuple(options.ans2label_dict)
    return read_answer_list(options.ans2label_file) if options.ans2label_file is not None else None


def read_answer_list(path: str | Path) -> tuple[str, ...]:
    """Read a closed list of answers: a JSON list or object, one answer per line, or the released pickle.

    The pickle may hold nothing but dicts, lists, strings and numbers; anything else is refused, so no code
    of the file runs. Raises ConfigError.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"answer list {path} cannot be read: {error.strerror}") from error
    try:
        if data[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
            content = load_plain(data)
        elif path.suffix == ".json":
            content = json.loads(data)
        else:
            content = data.decode("utf-8-sig").splitlines()
    except ConfigError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        raise ConfigError(f"answer list {path} cannot be read: {error}") from error
    if not isinstance(content, Mapping | list | tuple):
        raise ConfigError(
            f"answer list {path} holds a {type(content).__name__}, expected a list or a mapping"
        )
    answers = tuple(dict.fromkeys(str(answer).strip() for answer in content if str(answer).strip()))
    if not answers:
        raise ConfigError(f"answer list {path} is empty")
    return answers
