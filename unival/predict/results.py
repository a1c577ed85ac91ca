"""What a predictor returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unival.errors import ConfigError
from unival.media.loader import MediaLoader
from unival.vocabulary.boxes import Box, drawable

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Result:
    """One prediction; ``str(result)`` is its text, or its box as "x0,y0,x1,y1".

    text: a caption, an answer or a label; None for a box. box: (x0, y0, x1, y1) in pixels of the input, x to
    the right, y down from the top left corner; None for text.
    log_prob: log-probability of the output; where the task's decoding compares outputs of different lengths
    by it (captions), divided by their number of tokens. n_best: (output, log_prob), best first, when asked
    for. distribution: answer -> probability over a closed list, summing to 1, where there is one.
    """

    modality: str
    text: str | None
    box: Box | None
    log_prob: float
    n_best: tuple[tuple[Any, float], ...] = ()
    distribution: dict[str, float] | None = None
    medium: Any = field(default=None, repr=False)

    @property
    def output(self) -> str | Box | None:
        return self.box if self.text is None else self.text

    @property
    def probability(self) -> float | None:
        """Probability of the answer within its closed list, None without one."""
        return None if self.distribution is None else self.distribution[str(self.text)]

    def __str__(self) -> str:
        return ",".join(f"{c:g}" for c in self.box or ()) if self.text is None else self.text

    def draw(self, colour: str = "red", width: int | None = None) -> Image.Image:
        """Return a copy of the input picture, upright, with the box drawn; ``width`` of its line in pixels.

        Raises ConfigError for a result without a box.
        """
        from PIL import ImageDraw

        if self.box is None:
            raise ConfigError(f"this result is the text {self.text!r}: only boxes (ground) are drawn")
        picture = MediaLoader().image(self.medium)
        line = width or max(2, min(picture.size) // 100)
        ImageDraw.Draw(picture).rectangle(drawable(self.box, picture.size), outline=colour, width=line)
        return picture


@dataclass(frozen=True)
class Encoding:
    """Output of the encoder for one input, float32 on the CPU.

    states (S, D): tokens of the medium, row by row of its grid, then those of the text; media_tokens: how
    many of the S belong to the medium; pooled (D,): mean of the states.
    """

    modality: str | None
    states: Tensor
    media_tokens: int

    @property
    def pooled(self) -> Tensor:
        return self.states.mean(0)


@dataclass(frozen=True)
class Drawing:
    """Generated images of one text, best first, RGB, and their image codes in row-major order.

    similarity: cosine of the best one and the text, None without a CLIP.
    """

    images: tuple[Image.Image, ...]
    codes: tuple[list[int], ...] = field(repr=False)
    similarity: float | None

    @property
    def image(self) -> Image.Image:
        return self.images[0]
