"""What users hand over as an image, a video or a sound: files, bytes and objects in memory, told apart."""

from __future__ import annotations

import io
import mimetypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unival.core.modalities import NAMES
from unival.media.arguments import one_of
from unival.media.loader import MediaLoader, in_memory
from unival.media.memory import EXPECTED, label
from unival.media.source import MediaError


def as_reference(given: Any) -> Any:
    """Return an input as a ``MediaLoader`` takes it, readable more than once and from any thread.

    A string is a path, whatever its name; a file object is read from where it stands. Files, bytes, PIL
    images, arrays, tensors and pairs (waveform, rate) are media; MediaError for anything else.
    """
    from PIL import Image

    if isinstance(given, str | os.PathLike):
        return Path(os.fsdecode(given))
    if not in_memory(given) or isinstance(given, (Image.Image, np.ndarray)):
        return given
    if isinstance(given, tuple) and len(given) == 2 and hasattr(given[0], "__len__"):
        return given
    if hasattr(given, "read"):
        return _content(given)
    if hasattr(given, "detach"):  # a torch tensor
        return given.detach()
    raise MediaError(describe(given), f"expected {EXPECTED}, not {type(given).__name__}")


def _content(file: Any) -> bytes:
    name = str(getattr(file, "name", None) or describe(file))
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # a closed file is a ValueError
        raise MediaError(name, f"cannot be read ({error})") from error
    if not isinstance(data, bytes):
        raise MediaError(name, "the file object is in text mode: open it with mode 'rb'")
    return data


def describe(given: Any) -> str:
    """Name an input in a message."""
    return str(given) if isinstance(given, (str, os.PathLike)) else label(given)


def modality_of(reference: Any, asked: str | None = None) -> str:
    """Return the modality of an input (as :func:`as_reference` returns it), ``asked`` when that is given.

    Objects are told by type and shape, files by their name, else by what opens them.
    """
    if asked is not None:
        one_of("modality", asked, NAMES)
        return asked
    if not in_memory(reference):
        return _modality_of_file(reference)
    if isinstance(reference, tuple) or getattr(reference, "ndim", None) == 1:
        return "audio"
    return "video" if getattr(reference, "ndim", 3) == 4 else "image"


class RememberingLoader(MediaLoader):
    """Decodes every medium once, for calls with many texts about one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._decoded: dict[tuple[Any, ...], Any] = {}

    def image(self, ref: Any) -> Any:
        return self._once(super().image, ref)

    def video(
        self, ref: Any, num_frames: int, sampling: str = "middle", rng: np.random.Generator | None = None
    ) -> np.ndarray:
        return self._once(super().video, ref, num_frames, sampling, rng)

    def audio(self, ref: Any, rate: int) -> np.ndarray:
        return self._once(super().audio, ref, rate)

    def _once(self, decode: Callable[..., Any], ref: Any, *arguments: Any) -> Any:
        key = (decode.__name__, id(ref), *arguments)
        if key not in self._decoded:
            self._decoded[key] = decode(ref, *arguments)
        return self._decoded[key]


def _modality_of_file(given: Any) -> str:
    """Tell by the name of a path; bytes and odd names by the first reader that recognises the content."""
    if isinstance(given, (str, os.PathLike)):
        kind = (mimetypes.guess_type(os.fspath(given))[0] or "").split("/")[0]
        if kind in NAMES:
            return kind
        if not os.path.isfile(given):
            raise MediaError(str(given), "no such file")
    for recognise in (_as_image, _as_sound, _as_container):
        try:
            found = recognise(given)
        except Exception:  # any complaint of a library means: not a file of its kind
            continue
        if found is not None:
            return found
    raise MediaError(describe(given), "is not an image, video or sound that can be read")


def _handle(given: Any) -> Any:
    return given if isinstance(given, (str, os.PathLike)) else io.BytesIO(bytes(given))


def _as_image(given: Any) -> str:
    from PIL import Image

    with Image.open(_handle(given)):
        return "image"


def _as_sound(given: Any) -> str | None:
    import soundfile

    return "audio" if soundfile.info(_handle(given)).frames > 0 else None


def _as_container(given: Any) -> str | None:
    from unival.media.container import confined, pyav

    in_bytes = not isinstance(given, (str, os.PathLike))
    with pyav().open(_handle(given), options=confined(in_bytes)) as container:
        moving = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        return "video" if moving else "audio" if container.streams.audio else None
