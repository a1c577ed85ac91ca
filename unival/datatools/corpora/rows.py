"""From a record to the rows of one table, in the reference's column orders (``unival.tables.layouts``)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from unival.datatools.corpora.records import Record, Table
from unival.vocabulary.cleaning import SEPARATOR, strip_punctuation

Row = list[str]

NO_LABEL = "-"  # what SNLI writes where its annotators disagree


class Dropped(Exception):
    """A row that cannot be written; the text is the reason for the report."""


class Cleaner:
    """Makes texts fit a tab-separated file without quoting; ``repaired`` counts the texts that this changed.

    ``rule`` is applied to every text besides.
    """

    def __init__(self, rule: Callable[[str], str] = str) -> None:
        self.rule = rule
        self.repaired: Counter[str] = Counter()
        self._counted: set[tuple[str, str]] = set()

    def with_rule(self, rule: Callable[[str], str]) -> Cleaner:
        """Return a cleaner that also does ``rule``; both count together."""
        other = Cleaner(rule)
        other.repaired, other._counted = self.repaired, self._counted
        return other

    def __call__(self, text: str) -> str:
        """Return ``text`` on one line, single blanks, without the marks that the layouts reserve."""
        flat = " ".join(text.split())
        if any(c in text.strip() for c in "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
            self.count("tab or line break inside a text", text)
        if "\0" in flat:
            self.count("zero byte inside a text", text)
            flat = flat.replace("\0", "")
        if SEPARATOR in flat:
            self.count("'&&' inside a text", text)
            while SEPARATOR in flat:
                flat = flat.replace(SEPARATOR, "&")
        whole = flat.encode("utf-8", "replace").decode("utf-8")
        if whole != flat:
            self.count("half of a surrogate pair", text)
        return self.rule(whole)

    def count(self, what: str, text: str) -> None:
        """Count a text once, however many tables it goes to."""
        if (what, text) not in self._counted:
            self._counted.add((what, text))
            self.repaired[what] += 1

    def join(self, texts: Iterable[str]) -> str:
        return SEPARATOR.join(filter(None, map(self, texts)))


def answers_text(answers: Iterable[tuple[str, float]], clean: Cleaner) -> str:
    """Return "1.0|!+red&&0.3|!+pink"."""
    cleaned: dict[str, float] = {}
    for answer, confidence in answers:
        if text := clean(answer):
            cleaned[text] = max(round(confidence, 10), cleaned.get(text, 0.0))
    return SEPARATOR.join(f"{confidence}|!+{text}" for text, confidence in cleaned.items())


def rows_of(record: Record, table: Table, media: str, clean: Cleaner) -> list[Row]:
    """Return the rows that a record gives a table. Raises Dropped with the reason."""
    return _BUILDERS[table.layout](record, table, media, clean)


def _captions(record: Record, clean: Cleaner) -> list[tuple[str, str]]:
    """(row id, caption) pairs; captions without a word are left out."""
    pairs = []
    for number, caption in enumerate(record.captions):
        name = record.caption_ids[number] if record.caption_ids else f"{record.id}_{number}"
        text = clean(caption)
        if strip_punctuation(text):
            pairs.append((name, text))
        else:
            clean.count("caption without a word left out", name)
    if not pairs:
        raise Dropped("no caption with a word")
    return pairs


def _caption(record: Record, table: Table, media: str, clean: Cleaner) -> list[Row]:
    objects = clean.join(record.objects) if table.layout == "caption" else ""
    pairs = _captions(record, clean)
    if table.joined:
        text = SEPARATOR.join(caption for _, caption in pairs)
        return [[record.id, record.media_id, text, objects, media]]
    return [[name, record.media_id, caption, objects, media] for name, caption in pairs]


def _question(record: Record, clean: Cleaner) -> str:
    question = clean(record.question)
    if not question:
        raise Dropped("empty question")
    return question


def _vqa(record: Record, table: Table, media: str, clean: Cleaner) -> list[Row]:
    answers = answers_text(record.answers.items(), clean)
    if not answers and record.split != "test":
        raise Dropped("no answer")
    objects = clean.join(record.objects) if table.layout == "vqa" else ""
    said = [json.dumps(record.humans)] if table.humans else []
    return [[record.id, record.media_id, _question(record, clean), answers, objects, media, *said]]


def _box(record: Record) -> str:
    if record.box is None:
        raise Dropped("no box")
    x0, y0, x1, y1 = record.box
    if not (x1 - x0 >= 0.01 and y1 - y0 >= 0.01):
        raise Dropped("box without an area")
    return ",".join(f"{value:.2f}" for value in record.box)


def _phrase(record: Record, clean: Cleaner, wording: str = "") -> str:
    text = clean(wording or record.text)
    if not strip_punctuation(text):
        raise Dropped("phrase without a word")
    return text


def _grounding(record: Record, table: Table, media: str, clean: Cleaner) -> list[Row]:
    return [[record.id, record.media_id, _phrase(record, clean), _box(record), media]]


def _entailment(record: Record, table: Table, media: str, clean: Cleaner) -> list[Row]:
    if record.label == NO_LABEL:
        raise Dropped("no majority label")
    text = _phrase(record, clean)
    return [[record.id, record.media_id, media, text, clean(record.premise), record.label]]


def _pretrain(record: Record, table: Table, media: str, clean: Cleaner) -> list[Row]:
    tail = [clean.join(record.objects), table.dataset, table.kind]
    if record.question:
        answers = answers_text(record.answers.items(), clean)
        if not answers:
            raise Dropped("no answer")
        return [[_unique(record.id, table), media, "", _question(record, clean), answers, *tail]]
    if record.box is not None:
        phrase = _phrase(record, clean, record.pretraining_text)
        return [[_unique(record.id, table), media, phrase, "", _box(record), *tail]]
    pairs = _captions(record, clean)
    return [[_unique(name, table), media, caption, "", "", *tail] for name, caption in pairs]


def _unique(name: str, table: Table) -> str:
    """Corpora are merged for pretraining, and their ids are small numbers."""
    return name if name.startswith(table.dataset) else f"{table.dataset}_{name}"


_BUILDERS: dict[str, Callable[[Record, Table, str, Cleaner], list[Row]]] = {
    "caption": _caption,
    "video_caption": _caption,
    "audio_caption": _caption,
    "vqa": _vqa,
    "video_vqa": _vqa,
    "grounding": _grounding,
    "entailment": _entailment,
    "pretrain": _pretrain,
}


def coco_annotations(records: list[Record], clean: Cleaner) -> str:
    """Return captions as COCO annotations, which the official scorers and ``unival score`` read.

    Items have the ids of the rows that are evaluated.
    """
    ids: list[Any] = [int(r.id) if r.id.isdecimal() else r.id for r in records]
    annotations = [
        {"image_id": name, "caption": clean(caption)}
        for name, record in zip(ids, records, strict=True)
        for caption in record.captions
    ]
    content = {
        "images": [{"id": name} for name in ids],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations)],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"
