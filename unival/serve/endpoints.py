"""The tasks of the service: what a request holds, which method answers, what is sent back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from unival.core.modalities import ModalityName
from unival.errors import DataError
from unival.predict import offered
from unival.serve.limits import ServiceLimits
from unival.specs import SPECS
from unival.specs.base import TaskSpec

if TYPE_CHECKING:
    from unival.predict.predictor import Predictor
    from unival.predict.results import Encoding, Result

Modality = Literal["image", "video", "audio"]
Corners = tuple[float, float, float, float]


class TextChoice(BaseModel):
    """One of several outputs."""

    text: str
    log_prob: float


class TextReply(BaseModel):
    """A caption, an answer or a verdict; ``distribution`` over a closed list, ``n_best`` when asked for."""

    modality: Modality
    text: str
    log_prob: float
    n_best: list[TextChoice]
    distribution: dict[str, float] | None


class BoxChoice(BaseModel):
    """One of several boxes."""

    box: Corners | None
    log_prob: float


class BoxReply(BaseModel):
    """A box (x0, y0, x1, y1) in pixels of the upright picture, y down from its top left corner; null where
    the model's output is no box."""

    modality: Modality
    box: Corners | None
    log_prob: float
    n_best: list[BoxChoice]


class EncodingReply(BaseModel):
    """Mean of the encoder's states (D numbers), and how many states there were."""

    modality: Modality
    pooled: list[float]
    tokens: int
    media_tokens: int


class ErrorReply(BaseModel):
    """What is wrong with a request, or with the service."""

    error: str


def _text(result: Result) -> TextReply:
    choices = [TextChoice(text=text, log_prob=score) for text, score in result.n_best]
    return TextReply(
        modality=result.modality,  # type: ignore[arg-type]
        text=result.text or "",
        log_prob=result.log_prob,
        n_best=choices,
        distribution=result.distribution,
    )


def _box(result: Result) -> BoxReply:
    choices = [BoxChoice(box=box, log_prob=score) for box, score in result.n_best]
    return BoxReply(modality="image", box=result.box, log_prob=result.log_prob, n_best=choices)


def _encoding(encoding: Encoding) -> EncodingReply:
    return EncodingReply(
        modality=encoding.modality,  # type: ignore[arg-type]
        pooled=encoding.pooled.tolist(),
        tokens=len(encoding.states),
        media_tokens=encoding.media_tokens,
    )


@dataclass(frozen=True)
class Endpoint:
    """One task: ``POST /name`` asks it with the request's fields.

    ask: from predictor, medium and fields to a result. reply: from that to what is sent. text, optional: names of
    the fields that are texts.
    """

    name: str
    summary: str
    ask: Callable[..., Any]
    reply: Callable[[Any], BaseModel]
    reply_model: type[BaseModel]
    text: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    answers: bool = False
    n_best: bool = False
    modality: bool = True

    def fields(self, limits: ServiceLimits) -> type[BaseModel]:
        """Return the model of a request without its medium; unknown fields are refused."""
        text = Annotated[str, Field(min_length=1, max_length=limits.text_length)]
        fields: dict[str, Any] = dict.fromkeys(self.text, (text, ...))
        fields |= dict.fromkeys(self.optional, (text | None, None))
        if self.answers:
            closed = Annotated[list[text], Field(min_length=1, max_length=limits.answers)]  # type: ignore[valid-type]
            fields["answers"] = (closed | None, Field(None, description="closed list, the best of it wins"))
        if self.n_best:
            fields["n_best"] = (Annotated[int, Field(ge=1, le=limits.n_best)], 1)
        if self.modality:
            what = 'overrules what the file looks like: "audio" takes the sound of a video'
            fields["modality"] = (ModalityName | None, Field(None, description=what))
        config = ConfigDict(extra="forbid")
        return create_model(f"{self.name.title()}Request", __config__=config, **fields)

    def answer(
        self, predictor: Predictor, limits: ServiceLimits, media: bytes, fields: BaseModel
    ) -> BaseModel:
        """Ask the predictor. Raises its errors, and DataError for answers that cost too much."""
        given = fields.model_dump()
        if self.answers and given["answers"]:
            _affordable(predictor, given["answers"], limits)
        return self.reply(self.ask(predictor, media, given))


def _affordable(predictor: Predictor, answers: list[str], limits: ServiceLimits) -> None:
    """Memory and time of scoring go with the number of answers times the longest of them."""
    longest = max(len(predictor.loaded.vocabulary.encode(f" {answer}")) for answer in answers)
    if longest * len(answers) > limits.answer_tokens:
        raise DataError(
            f"answers: {len(answers)} with up to {longest} tokens; entries times tokens may be "
            f"{limits.answer_tokens}: send fewer or shorter ones"
        )


def endpoints() -> tuple[Endpoint, ...]:
    """Return the tasks that are offered to people, those of plug-ins too, and the encoder."""
    return (*(_of(spec) for spec in SPECS.values() if spec.offer is not None), ENCODE)


def _of(spec: type[TaskSpec]) -> Endpoint:
    offer = spec.offer
    assert offer is not None
    texts = (*offered.texts_of(spec), *offer.optional)

    def ask(predictor: Predictor, media: bytes, fields: dict[str, Any]) -> Any:
        asked = {name: fields.pop(name) for name in texts}
        return offered.ask(predictor, spec, media, asked, **fields)

    box = offer.shows == "box"
    return Endpoint(
        offered.name_of(spec),
        offer.summary,
        ask,
        _box if box else _text,
        BoxReply if box else TextReply,
        text=offered.texts_of(spec),
        optional=offer.optional,
        answers=offer.answers,
        n_best=spec.inference != "allcand",  # else there is one verdict, with the shares of all labels
        modality=len(spec.modalities) > 1,
    )


def _encode(predictor: Predictor, media: bytes, fields: dict[str, Any]) -> Any:
    return predictor.encode(media, **fields)


ENCODE = Endpoint(
    "encode",
    "Return the mean state of the encoder.",
    _encode,
    _encoding,
    EncodingReply,
    optional=("text",),
)
