"""How people meet a task outside of tables: a button of the demo's page, an address of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Offer:
    """What a task says of itself to people.

    summary: one sentence, for the service's description. title: the button of the page, "" for none. label: what the
    page calls the text that belongs to a medium. shows: a text, a box, or the shares of a closed list.
    method: of ``unival.predict.Predictor``, also the address in the service; "": the general ``ask``, and the task's
    name. argument: that method's name of the text, where it is not the field's. optional: texts that it also takes.
    answers: it takes a closed list of them.
    """

    summary: str
    title: str = ""
    label: str = ""
    shows: Literal["text", "box", "shares"] = "text"
    method: str = ""
    argument: str = ""
    optional: tuple[str, ...] = ()
    answers: bool = False
