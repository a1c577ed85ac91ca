"""What a media source is, the limits that protect a run, and the one error readers raise."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from unival.errors import UnivalError, said
from unival.media.names import absence, absolute

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


class MediaError(UnivalError):
    """A media file that cannot be used; ``str(error)`` is ``"source: reason"``.

    It is the only exception that bad media raises, whichever library met the damage (that
    library's exception is kept as ``__cause__``).
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source, self.reason = source, reason

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.source, self.reason)


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes above which a file is refused instead of filling the memory.

    image_pixels: width * height of an image (the default is Pillow's own limit).
    video_pixels: width * height of a frame (the default is 8192 x 4320, "8K").
    video_packets: packets (about: frames) of a video stream, the bound on the time one file takes;
        the default is 55 minutes at 30 frames a second.
    audio_seconds: length of an audio clip.
    """

    image_pixels: int = 89_478_485
    video_pixels: int = 35_389_440
    video_packets: int = 100_000
    audio_seconds: float = 3600.0


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Opened:
    """A source with a printable name and either a path or the whole content."""

    name: str
    path: str | None
    data: bytes | None

    def handle(self) -> str | io.BytesIO:
        """A path or a fresh in-memory file, for libraries that take either."""
        return self.path if self.path is not None else io.BytesIO(self.data or b"")


def open_source(source: Source, name: str | None = None) -> Opened:
    """Give a source its name and check that it is there and not empty.

    A file object is read from its current position to its end. Raises MediaError.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        return _content(name or f"<{len(data)} bytes>", data)
    if isinstance(source, str | os.PathLike):
        label = name or os.fspath(source)
        if not isinstance(label, str) or "\0" in label:
            raise MediaError(repr(label), "is not a file name")
        path = absolute(source)
        try:
            size = os.stat(path).st_size
        except (OSError, ValueError) as error:  # half a surrogate pair is a ValueError
            raise MediaError(label, _os_reason(path, error)) from error
        if os.path.isdir(path):
            raise MediaError(label, "is a folder, a file was expected")
        if size == 0:
            raise MediaError(label, "the file is empty (0 bytes)")
        return Opened(label, path, None)
    reader = getattr(source, "read", None)
    if reader is None:
        kind = type(source).__name__
        raise MediaError(name or repr(source)[:80], f"a source is a path, bytes or a file, not {kind}")
    label = name or str(getattr(source, "name", None) or f"<{type(source).__name__}>")
    with reading(label):
        data = reader()
    if not isinstance(data, bytes):
        raise MediaError(label, "the file object is in text mode: open it with mode 'rb'")
    return _content(label, data)


def _content(name: str, data: bytes) -> Opened:
    if not data:
        raise MediaError(name, "there is no content (0 bytes)")
    return Opened(name, None, data)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a decoding library raises into a MediaError for ``name``."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        # Decoders meet damaged bytes with any type at all: ValueError, struct.error, SyntaxError,
        # TypeError, IndexError, MemoryError... Callers get one type.
        raise MediaError(name, describe(error)) from error


def describe(error: BaseException) -> str:
    """One short line that says what a library complained about."""
    # FFmpeg's errors repeat their number and the file's name.
    said = getattr(error, "strerror", None) or str(error)
    text = " ".join(said.split()) or "no message"
    return f"cannot be decoded ({type(error).__name__}: {text[:200]})"


def _os_reason(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return absence(path)
    return f"cannot be opened ({said(error)})"
