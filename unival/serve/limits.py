"""What strangers may send to a service, and how much of it at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from unival.errors import ConfigError
from unival.media import Limits


def _limit(default: int, text: str) -> Any:
    return field(default=default, metadata={"help": f"{text} (default: {default})"})


@dataclass(frozen=True)
class ServiceLimits:
    """Limits of the JSON service and of the demo; every field is an option of both programs.

    A service holds at most ``workers + queue`` uploads of ``upload_bytes`` in memory. Raises ConfigError for
    numbers below 1 (``queue``: below 0).
    """

    upload_bytes: int = _limit(32 << 20, "largest request or file, in bytes")
    image_pixels: int = _limit(40_000_000, "width * height of an image")
    video_pixels: int = _limit(3840 * 2160, "width * height of a frame")
    video_frames: int = _limit(9000, "frames of a video, looked at or not")
    audio_seconds: int = _limit(600, "length of a sound")
    text_length: int = _limit(1000, "characters of one text")
    answers: int = _limit(200, "entries of a list of answers")
    answer_tokens: int = _limit(2000, "entries of a list of answers, times the tokens of its longest")
    n_best: int = _limit(10, "outputs asked for at once")
    workers: int = _limit(1, "requests in the model at once, a thread each")
    queue: int = _limit(16, "requests that may wait; more are told to come back")
    connections: int = _limit(100, "connections at once, idle ones too; more are sent away")
    head_seconds: int = _limit(10, "time a client has to send the head of a request, or to stay idle")
    upload_seconds: int = _limit(60, "time a client has to send its request")
    answer_seconds: int = _limit(120, "time until a request is given up, waiting or in the model")

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, least = getattr(self, item.name), 0 if item.name == "queue" else 1
            if value < least:
                raise ConfigError(f"{item.name} is {value}: at least {least} is needed")

    def media(self) -> Limits:
        """The limits of the readers, for ``unival.load(..., limits=...)``."""
        return Limits(self.image_pixels, self.video_pixels, self.video_frames, self.audio_seconds)
