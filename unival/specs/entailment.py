"""Visual entailment: does the image support, contradict, or leave open a hypothesis?"""

from __future__ import annotations

from typing import ClassVar

from unival.specs.base import Field, text_of
from unival.specs.inputs import media_field
from unival.specs.matching import LabelSpec
from unival.specs.offer import Offer
from unival.specs.options import SpecOptions
from unival.tables.row import Row
from unival.vocabulary.cleaning import clean_caption
from unival.vocabulary.prompts import prompt


class EntailmentSpec(LabelSpec):
    """``does the image describe " ... "?`` -> yes, no or maybe (reference behaviour).

    With ``add_caption`` the premise caption joins the question.
    """

    name = "entailment"
    best_metric = "snli_score"
    right_metric = "snli_score"
    reference_options = ("add_caption", "prompt_type")
    offer = Offer(
        "Judge a statement about an image: yes, no or maybe.",
        "Judge",
        "Statement",
        "shares",
        method="entails",
        argument="text",
        optional=("premise",),
    )
    labels = ("no", "yes", "maybe")
    label_names: ClassVar[dict[str, str]] = {
        "entailment": "yes",
        "contradiction": "no",
        "neutral": "maybe",
        "yes": "yes",
        "no": "no",
        "maybe": "maybe",
    }

    @property
    def fields(self) -> tuple[Field, ...]:
        return (
            media_field("image"),
            Field("hypothesis", True, "the statement to judge"),
            Field("caption", False, "the premise as text, used with add_caption"),
            Field(
                "label",
                True,
                "entailment, contradiction or neutral (also yes, no, maybe)",
                target=True,
                words=False,
            ),
        )

    @property
    def layout_name(self) -> str:
        return "entailment"

    def source_text(self, row: Row, options: SpecOptions) -> str:
        hypothesis = clean_caption(text_of(row, "hypothesis"), options.max_src_length)
        if not options.add_caption:
            return prompt("entailment", options.prompts, text=hypothesis)
        caption = clean_caption(text_of(row, "caption"), options.max_src_length)
        return prompt("entailment.caption", options.prompts, caption=caption, text=hypothesis)
