"""What every corpus becomes (records) and what is made of them (tables)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unival.vocabulary.boxes import Box

if TYPE_CHECKING:
    from unival.datatools.corpora.official import Sources


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated item, whatever corpus it is from.

    ``media_id`` is the medium's official id: no medium may be in two splits. ``media`` holds the parts that a
    media name template may use, such as {"folder": "train2014", "file": "COCO_train2014_000000000009.jpg"}.
    A record carries several captions (``caption_ids`` names them), or one question with its answers (answer ->
    confidence in (0, 1]; ``humans``: what each person said, as it is), or a phrase ``text`` with its ``box`` (x0, y0,
    x1, y1 in pixels; ``pretraining_text``: its wording in the pretraining table, where that is another), or a
    hypothesis ``text`` with ``premise`` and ``label``. ``root``: the place of ``Corpus.roots`` that the medium is in.
    """

    id: str
    split: str
    media_id: str
    media: Mapping[str, Any]
    captions: tuple[str, ...] = ()
    caption_ids: tuple[str, ...] = ()
    question: str = ""
    answers: Mapping[str, float] = field(default_factory=dict)
    humans: tuple[str, ...] = ()
    text: str = ""
    pretraining_text: str = ""
    premise: str = ""
    label: str = ""
    box: Box | None = None
    objects: tuple[str, ...] = ()
    group: str = ""
    root: str = ""


@dataclass(frozen=True)
class Table:
    """One file to write, below the output folder.

    ``layout``: a name of ``unival.tables.LAYOUTS``; "jsonl" writes id and medium only (test sets without
    annotations). ``splits``: the records it takes, ``groups``: only those of these groups. ``joined``: one row per
    medium with all captions, for evaluation; otherwise one row per caption. ``shuffled``: written as ``_1`` to
    ``_N``, one true shuffle each, as the reference has them. ``closed``: answers outside the closed list, and rows
    without one in it, are left out (training). ``humans``: the last column holds what each person said.
    ``kind`` and ``dataset``: the last two columns of the pretraining layout. ``text``: what ``--text published`` does
    to captions (``unival.datatools.corpora.texts``). ``references``: file that gets the captions as COCO annotations,
    for the scorers.
    """

    name: str
    layout: str
    splits: tuple[str, ...] = ("train",)
    groups: tuple[str, ...] = ()
    joined: bool = False
    shuffled: bool = False
    closed: bool = False
    humans: bool = False
    kind: str = ""
    dataset: str = ""
    text: str = ""
    references: str = ""

    def takes(self, record: Record) -> bool:
        """Whether a record's split and group are this table's."""
        return record.split in self.splits and (not self.groups or record.group in self.groups)


@dataclass(frozen=True)
class Source:
    """One official file: ``name`` becomes the option ``--name``, ``file`` is its official file name.

    ``refusable``: it is part of the published tables, and ``--name none`` leaves it out. ``asked``: read only when its
    option names it, not because it is in the folder.
    """

    name: str
    file: str
    required: bool = True
    help: str = ""
    refusable: bool = False
    asked: bool = False


@dataclass(frozen=True)
class Option:
    """One option of a corpus; its type is the default's."""

    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerList:
    """The closed list of a question corpus: ``NAME.json`` and ``NAME.pkl`` (answer -> number).

    Best answers of ``splits`` that are best at least ``min_count`` times, the ``max_answers`` most frequent; records
    of the groups ``uncounted`` do not count.
    """

    name: str
    min_count: int
    max_answers: int = 0
    splits: tuple[str, ...] = ("train", "val")
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """A corpus: official files, a reader, tables.

    ``read`` yields the records of all splits in the official order and can be called twice. ``media``: default
    name of a medium below the media root, as a template over ``Record.media``. ``hold_out``: how many media of
    the training split become the validation split when the corpus has none. ``numbered``: ids are line numbers
    and the corpus is one split, so that nothing needs to be remembered. ``segments``: list of the clips to cut
    from longer media, for ``unival data compress --segments``; the reader gives ``Record.media["clip"]`` = (source,
    start, end) in seconds. ``roots``: other places that media are in, name -> template, each with an option
    ``--NAME-media-root``.
    """

    name: str
    title: str
    modality: str
    sources: tuple[Source, ...]
    read: Callable[[Sources], Iterator[Record]]
    tables: tuple[Table, ...]
    media: str
    options: tuple[Option, ...] = ()
    answers: AnswerList | None = None
    hold_out: int = 0
    numbered: bool = False
    segments: str = ""
    roots: Mapping[str, str] = field(default_factory=dict)


def caption_tables(layout: str, train: str, val: str, test: str) -> tuple[Table, ...]:
    """Return the tables of a corpus of videos or sounds: training rows, and references beside the evaluation tables."""
    return (
        Table(train, layout, shuffled=True, text="letters"),
        *(
            Table(name, layout, (split,), joined=True, text="letters", references=f"{name}_coco_format.json")
            for name, split in ((val, "val"), (test, "test"))
        ),
    )
