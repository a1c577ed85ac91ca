"""Question answering on images and videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from unival.batching.batch import Example
from unival.media.loader import MediaLoader
from unival.specs.answers import AnswerSpec, answers_of, closed_answers, encode_answer
from unival.specs.base import Field, bad_value, compose, joined_texts, row_id, text_of
from unival.specs.inputs import load_media, media_field
from unival.specs.offer import Offer
from unival.specs.options import SpecOptions
from unival.specs.scoring import need_references
from unival.tables.row import Row
from unival.vocabulary.cleaning import clean_question, split_joined, with_question_mark
from unival.vocabulary.prompts import prompt
from unival.vocabulary.vocabulary import Vocabulary


class VqaSpec(AnswerSpec):
    """A question -> its answer, open or from a closed list (reference behaviour).

    The answer with the highest confidence is learnt and its confidence becomes the example's weight; with a
    closed list, the highest one in it. Decoding is constrained to the closed list by a trie. The default
    ``prompt_type`` is "none"; the released checkpoints use "prev_output".
    """

    name = "vqa"
    modalities = ("image", "video")
    best_metric = "vqa_score"
    right_metric = "vqa_score"
    generation: ClassVar[dict[str, Any]] = {"beam": 5, "unnormalized": True, "temperature": 1.0}
    official = "vqa"
    reference_options = ("max_object_length", "add_object", "prompt_type")
    offer = Offer(
        "Answer a question about an image or a video.", "Ask", "Question", method="answer", answers=True
    )

    @property
    def fields(self) -> tuple[Field, ...]:
        answers = "answer, or 'confidence|!+answer' joined by &&"
        return (
            media_field(self.modality),
            Field("question", True, "question"),
            Field("answer", False, f"{answers}; needed for training and scores", target=True),
            Field("answers", False, "another name of 'answer'", target=True),
            Field("objects", False, "object names joined by &&, used with add_object", words=False),
            Field(
                "human_answers",
                False,
                "what each person said, a JSON list; for the official accuracy",
                words=False,
            ),
        )

    @property
    def layout_name(self) -> str:
        return "vqa" if self.modality == "image" else f"{self.modality}_vqa"

    def candidates(self, options: SpecOptions) -> tuple[str, ...] | None:
        if self._answers is None or self._answers[0] is not options:
            self._answers = (options, closed_answers(options))
        return self._answers[1]

    _answers: tuple[SpecOptions, tuple[str, ...] | None] | None = None

    def reference(self, row: Row, options: SpecOptions) -> dict[str, float] | None:
        return answers_of(row)

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        question = with_question_mark(clean_question(text_of(row, "question"), options.max_src_length))
        source = vocabulary.encode(prompt("vqa", options.prompts, question=question))
        objects = joined_texts(row, "objects") if options.add_object else ""
        if objects:
            names = " ".join(split_joined(objects)[: options.max_object_length])
            source += vocabulary.encode(prompt("vqa.objects", options.prompts, objects=names))
        answers = answers_of(row)
        answer: str | None = None
        target: list[int] = []
        weight = 1.0
        if answers is None and training:
            raise bad_value(row, "answer", "expected an answer in column 'answer' or 'answers' to learn from")
        if answers is not None:
            answer = self._target(row, answers, options, training)
            target, weight = encode_answer(vocabulary, answer), answers[answer]
        loaded = load_media(row, self.modality, media, options, rng, training)
        return [
            compose(
                row_id(row),
                source,
                target,
                vocabulary,
                options,
                options.prompt_type,
                self.allowed_lists(options, vocabulary, answer),
                reference=answers,
                weight=weight,
                **loaded,
            )
        ]

    def _target(self, row: Row, answers: dict[str, float], options: SpecOptions, training: bool) -> str:
        closed = self.candidates(options)
        known = answers if closed is None else {a: c for a, c in answers.items() if a in self._closed(closed)}
        if not known and training:
            raise bad_value(
                row,
                "answer",
                f"none of the answers {list(answers)[:5]} is in the closed list of {len(closed or ())}; "
                "add one to the list or drop the row",
            )
        return max(known or answers, key=answers.__getitem__)

    def score(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """vqa_score: mean confidence of the predicted string among the row's answers, 0 to 1."""
        from unival.metrics import soft_answer_accuracy

        need_references(references, ids)
        return {"vqa_score": float(soft_answer_accuracy(list(predictions), list(references)))}

    def answer_of(self, reference: dict[str, float]) -> str:
        return max(reference, key=reference.__getitem__)
