"""Is this the answer to that question? yes or no."""

from __future__ import annotations

from unival.specs.base import Field, text_of
from unival.specs.inputs import media_field
from unival.specs.matching import LabelSpec
from unival.specs.options import SpecOptions
from unival.tables.row import Row
from unival.vocabulary.cleaning import clean_question
from unival.vocabulary.prompts import prompt


class VerificationSpec(LabelSpec):
    """``what is the answer to question " ... ". is " ... "?`` -> yes or no (reference: in pretraining)."""

    name = "verification"
    modalities = ("image", "video")

    @property
    def fields(self) -> tuple[Field, ...]:
        return (
            media_field(self.modality),
            Field("question", True, "question"),
            Field("answer", True, "the answer to judge"),
            Field(
                "label", True, "yes or no (also match/no-match, 1/0, true/false)", target=True, words=False
            ),
        )

    def source_text(self, row: Row, options: SpecOptions) -> str:
        question = clean_question(text_of(row, "question"), options.max_src_length)
        answer = text_of(row, "answer").strip()
        return prompt("verification", options.prompts, question=question, answer=answer)
