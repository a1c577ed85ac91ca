"""Pretraining rows: each gives a generative example and its matching counterpart (paper section 3.3).

The same class reads the reference's eight-column files and tables with named fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from unival.batching.batch import Example
from unival.core.modalities import NAMES
from unival.errors import ConfigError
from unival.media.loader import MediaLoader
from unival.specs.answers import answers_of, encode_answer
from unival.specs.base import (
    Field,
    TaskSpec,
    bad_value,
    compose,
    is_absent,
    joined_texts,
    optional_text,
    row_id,
    text_of,
)
from unival.specs.caption import captions_of
from unival.specs.grounding import box_of, ground_image, region_source
from unival.specs.inputs import load_media
from unival.specs.negatives import NegativePool
from unival.specs.options import SpecOptions
from unival.tables.row import Row
from unival.vocabulary.boxes import Box
from unival.vocabulary.cleaning import clean_caption, clean_question, split_joined
from unival.vocabulary.prompts import prompt
from unival.vocabulary.vocabulary import Vocabulary

KINDS = ("caption", "qa", "visual_grounding")
_POOL_ROWS = 100_000
# leading target tokens that are not scored in captions of a data set (reference behaviour)
_UNSCORED_TOKENS = {"cc12m": 2}


@dataclass(frozen=True)
class _Parsed:
    kind: str
    modality: str
    column: str


class PretrainSpec(TaskSpec):
    """One row -> its examples (reference behaviour, inventory 6.9).

    ============ ============================ ========================================
    row          generative                   in training also
    ============ ============================ ========================================
    caption      caption                      does the ... describe " ... "? yes or no
    qa           answer                       what is the answer ... is " ... "? yes or no
    grounding    box of the text              text of the box
    ============ ============================ ========================================

    The matching half is positive with probability one half; negatives come from ``pool``: from
    ``neg_sample_dir``, or from the table itself through ``prepare``. A row's ``type`` (caption, qa,
    visual_grounding, video_caption, video_qa, audio...) decides; without that column a question makes
    it qa, a box grounding, anything else captioning, on the modality whose column the row has.
    """

    name = "pretrain"
    modalities = NAMES
    best_metric = "loss"
    generation: ClassVar[dict[str, Any]] = {"beam": 1}
    reference_options = ("max_image_size",)

    def __init__(self, modality: str = "image", pool: NegativePool | None = None) -> None:
        super().__init__(modality)
        self.pool = pool

    @property
    def fields(self) -> tuple[Field, ...]:
        return (
            Field(
                self.modality, False, f"{self.modality}, or 'media' in the reference's layout", words=False
            ),
            Field(
                "type",
                False,
                "caption, qa, visual_grounding, video_caption, video_qa, audio_caption or audio_qa",
                words=False,
            ),
            Field("caption", False, "caption, or phrase of a region (also 'text')"),
            Field("question", False, "question of a qa row"),
            Field("answer", False, "answers of a qa row (in the reference's layout: 'refs')"),
            Field("box", False, "box of a grounding row (in the reference's layout: 'refs')", words=False),
            Field(
                "objects",
                False,
                "names of objects in the picture, joined by &&, for wrong captions",
                words=False,
            ),
            Field("dataset", False, "name of the data set the row is from", words=False),
        )

    @property
    def layout_name(self) -> str:
        return "pretrain"

    def modality_of(self, row: Row) -> str:
        return self._parse(row).modality

    def prepare(self, rows: Sequence[Row], options: SpecOptions) -> None:
        """Make the pool of negatives: ``neg_sample_dir``, else at most 100,000 evenly spaced rows."""
        if self.pool is not None or options.matching_prob == 0:
            return
        if options.neg_sample_dir is not None:
            self.pool = NegativePool.from_folder(
                options.neg_sample_dir, options.neg_captions_video, options.neg_captions_audio
            )
            return
        captions: dict[str, list[str]] = {name: [] for name in NAMES}
        questions: list[tuple[str, str]] = []
        objects: list[str] = []
        step = max(1, -(-len(rows) // _POOL_ROWS))
        for index in range(0, len(rows), step):
            row = rows[index]
            parsed = self._parse(row)
            objects += split_joined(joined_texts(row, "objects"))
            if parsed.kind == "caption":
                captions[parsed.modality] += captions_of(row, _text_column(row)) or []
            elif parsed.kind == "qa":
                question = clean_question(text_of(row, "question"))
                questions += [(question, answer) for answer in _answers(row)]
        self.pool = NegativePool.from_texts(captions, questions, objects)

    def reference(self, row: Row, options: SpecOptions) -> Any:
        parsed = self._parse(row)
        if parsed.kind == "qa":
            return _answers(row)
        return _box(row) if parsed.kind == "visual_grounding" else captions_of(row, _text_column(row))

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        parsed = self._parse(row)
        build = _Builder(self, row, parsed, media, options, vocabulary, rng, training)
        if parsed.kind == "qa":
            return build.question()
        return build.grounding() if parsed.kind == "visual_grounding" else build.caption()

    def score(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Return nothing: pretraining is judged by its loss; the tasks score what it learnt."""
        return {}

    def _parse(self, row: Row) -> _Parsed:
        name = optional_text(row, "type")
        present = [m for m in NAMES if not is_absent(row.get(m))]
        if name is None:
            modality = self.modality if self.modality in present or not present else present[0]
            kind = "caption"
            if not is_absent(row.get("question")):
                kind = "qa"
            elif not is_absent(row.get("box")):
                kind = "visual_grounding"
        else:
            modality = "audio" if "audio" in name else "video" if name.startswith("video_") else self.modality
            kind = name.removeprefix("video_").removeprefix("audio_")
            if (
                "audio" in name and kind != "qa"
            ):  # the reference takes any other type that names audio for this
                kind = "caption"
            if kind == "grounding":
                kind = "visual_grounding"
        if kind not in KINDS or (kind == "visual_grounding" and modality != "image"):
            raise bad_value(
                row,
                "type",
                "expected caption, qa, visual_grounding, video_caption, video_qa, audio_caption or audio_qa, "
                f"got '{name or kind}' for {modality}",
            )
        column = "media" if is_absent(row.get(modality)) and row.get("media") is not None else modality
        return _Parsed(kind, modality, column)


def _text_column(row: Row) -> str:
    return "text" if is_absent(row.get("caption")) and row.get("text") is not None else "caption"


def _answers(row: Row) -> dict[str, float]:
    refs = row.get("refs")
    answers = answers_of(row if is_absent(refs) else Row({"answers": refs}, row.path, row.line))
    if answers is None:
        raise bad_value(row, "answer", "expected answers such as '1.0|!+red&&0.3|!+pink', the field is empty")
    return answers


def _box(row: Row) -> Box:
    box = box_of(row, "refs" if not is_absent(row.get("refs")) else "box")
    if box is None:
        raise bad_value(row, "box", "expected a box as four numbers 'x0,y0,x1,y1', the field is empty")
    return box


@dataclass(frozen=True)
class _Builder:
    """The examples of one row."""

    spec: PretrainSpec
    row: Row
    parsed: _Parsed
    media: MediaLoader
    options: SpecOptions
    vocabulary: Vocabulary
    rng: np.random.Generator | None
    training: bool

    def caption(self) -> list[Example]:
        column = _text_column(self.row)
        captions = captions_of(self.row, column, required=True)
        assert captions is not None
        chosen = captions[self._drawn(len(captions))]
        text = self._worded(clean_caption(chosen, self.options.max_tgt_length), column)
        modality = self.parsed.modality
        loaded = self._load()
        question = prompt(f"caption.{modality}", self.options.prompts)
        out = [self._compose("", question, text, reference=captions, **loaded)]
        unscored = _UNSCORED_TOKENS.get((optional_text(self.row, "dataset") or "").lower(), 0)
        if unscored and modality == "image":
            out[0].target[: min(unscored, len(out[0].target) - 1)] = self.vocabulary.pad
        positive = self._matching()
        if positive is not None and self.rng is not None:
            true = chosen
            if not positive:
                objects = split_joined(joined_texts(self.row, "objects"))
                true = self._pool().caption(self.rng, [chosen, *captions], modality, objects)
            text = clean_caption(true, self.options.max_src_length)
            question = prompt(f"matching.{modality}", self.options.prompts, text=text)
            out.append(self._compose("/matching", question, _yes_no(positive), **loaded))
        return out

    def question(self) -> list[Example]:
        asked = clean_question(text_of(self.row, "question"), self.options.max_src_length)
        answers = _answers(self.row)
        answer = max(answers, key=answers.__getitem__)
        loaded = {**self._load(), "weight": answers[answer]}
        source = prompt("vqa", self.options.prompts, question=asked)
        out = [self._compose("", source, answer, reference=answers, **loaded)]
        positive = self._matching()
        if positive is not None and self.rng is not None:
            shown = answer if positive else self._pool().answer(self.rng, answers, answer)
            source = prompt("verification", self.options.prompts, question=asked, answer=shown)
            out.append(self._compose("/matching", source, _yes_no(positive), **loaded))
        return out

    def grounding(self) -> list[Example]:
        column = _text_column(self.row)
        captions = captions_of(self.row, column, required=True)
        assert captions is not None
        phrase = captions[self._drawn(len(captions))]
        fields, box, bins = ground_image(
            self.row,
            _box(self.row),
            self.media,
            self.options,
            self.vocabulary.num_bins,
            self.rng,
            self.training,
            column=self.parsed.column,
            box_column="box" if is_absent(self.row.get("refs")) else "refs",
            pretraining=True,
        )
        text = self._worded(clean_caption(phrase, self.options.max_src_length), column)
        source = self.vocabulary.encode(prompt("grounding", self.options.prompts, text=text))
        target = [self.vocabulary.bin_id(b) for b in bins]
        identifier = row_id(self.row)
        out = [compose(identifier, source, target, self.vocabulary, self.options, reference=box, **fields)]
        if self.training:
            source = region_source(bins, self.vocabulary, self.options)
            target = encode_answer(self.vocabulary, clean_caption(phrase, self.options.max_tgt_length))
            out.append(
                compose(f"{identifier}/region", source, target, self.vocabulary, self.options, **fields)
            )
        return out

    def _drawn(self, count: int) -> int:
        """Number of the caption that is learnt; evaluation, which may draw frames, takes the first."""
        return int(self.rng.integers(count)) if self.training and self.rng is not None else 0

    def _load(self) -> dict[str, Any]:
        return load_media(
            self.row,
            self.parsed.modality,
            self.media,
            self.options,
            self.rng,
            self.training,
            self.parsed.column,
            pretraining=True,
        )

    def _compose(self, suffix: str, source: str, target: str, **rest: Any) -> Example:
        encode = self.vocabulary.encode
        ids, answer = encode(source), encode(f" {target}")
        return compose(row_id(self.row) + suffix, ids, answer, self.vocabulary, self.options, **rest)

    def _matching(self) -> bool | None:
        """Whether the matching example is positive; None for no such example."""
        if not self.training or self.rng is None or self.options.matching_prob == 0:
            return None
        self._pool()  # fail on the first row, not on the first negative
        if self.rng.random() >= self.options.matching_prob:
            return None
        return bool(self.rng.random() < 0.5)

    def _pool(self) -> NegativePool:
        if self.spec.pool is None:
            raise ConfigError(
                "matching examples need wrong captions and answers: call PretrainSpec.prepare with the "
                "training table first, or set matching_prob 0"
            )
        return self.spec.pool

    def _worded(self, text: str, column: str) -> str:
        if not text:
            raise bad_value(self.row, column, "expected a caption with at least one word")
        return text


def _yes_no(positive: bool) -> str:
    return "yes" if positive else "no"
