"""What a visitor of the page can ask of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unival.specs import get_spec

if TYPE_CHECKING:
    from unival.predict.predictor import Predictor
    from unival.predict.results import Result


@dataclass(frozen=True)
class Action:
    """One task of the page.

    method: of the predictor. task: its description in unival.specs. asks: label of the text, "" for none.
    column: that text's name in tables. shows: "text", "box" or "shares" (a distribution).
    """

    title: str
    method: str
    task: str
    asks: str = ""
    column: str = ""
    shows: str = "text"

    def on(self, modality: str) -> bool:
        """Whether the task makes sense on a modality."""
        return modality in get_spec(self.task).modalities

    def ask(self, predictor: Predictor, media: bytes, modality: str, text: str | None) -> Result:
        """Ask the predictor. Raises its errors."""
        texts = [text] if self.asks else []
        chosen: dict[str, Any] = {"modality": modality} if self.method in ("caption", "answer") else {}
        return getattr(predictor, self.method)(media, *texts, **chosen)


ACTIONS = (
    Action("Describe", "caption", "caption"),
    Action("Ask", "answer", "vqa", "Question", "question"),
    Action("Find", "ground", "grounding", "What to find", "text", "box"),
    Action("Judge", "entails", "entailment", "Statement", "hypothesis", "shares"),
)


def possible(modalities: tuple[str, ...]) -> dict[str, list[Action]]:
    """Return the actions that a model with networks for ``modalities`` can do, by modality."""
    return {modality: [action for action in ACTIONS if action.on(modality)] for modality in modalities}
