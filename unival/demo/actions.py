"""What a visitor of the page can ask of a model: the tasks that say how (unival.specs.offer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unival.predict import offered
from unival.specs import SPECS
from unival.specs.base import TaskSpec
from unival.specs.offer import Offer

if TYPE_CHECKING:
    from unival.predict.predictor import Predictor


@dataclass(frozen=True)
class Action:
    """One task of the page."""

    spec: type[TaskSpec]
    offer: Offer

    @property
    def name(self) -> str:
        return offered.name_of(self.spec)

    @property
    def column(self) -> str:
        """The name of its text in tables, "" for none."""
        return next((field.name for field in self.spec().asked), "")

    def ask(self, predictor: Predictor, media: bytes, modality: str, text: str | None) -> Any:
        """Ask the predictor: a Result. Raises its errors."""
        texts = dict.fromkeys(offered.texts_of(self.spec), text)
        chosen = {"modality": modality} if len(self.spec.modalities) > 1 else {}
        return offered.ask(predictor, self.spec, media, texts, **chosen)


def possible(modalities: tuple[str, ...]) -> dict[str, list[Action]]:
    """Return the actions that a model with networks for ``modalities`` can do, by modality."""
    # the page has one text per task
    shown = [
        Action(spec, spec.offer)
        for spec in SPECS.values()
        if spec.offer is not None and spec.offer.title and len(spec().asked) < 2
    ]
    return {m: [action for action in shown if m in action.spec.modalities] for m in modalities}
