"""From the media column of a table to decoded media."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING, Any

from unival.media.columnar import read_cell
from unival.media.names import existing
from unival.media.source import DEFAULT_LIMITS, Limits, MediaError
from unival.media.tar import Member, read_member

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from unival.media.features import Shelf
    from unival.media.image import Draft
    from unival.media.kept import KeptMedia, KeptMedium


_LONGEST_NAME = 255  # no picture in base64 is that short


class MediaLoader:
    """Resolves media references and decodes them.

    A reference is a string, a path, a file's bytes, or a medium in memory (unival.media.memory). A string
    with a "." in it is a path: absolute or below ``root``, or below ``table_dir`` (the folder of the table)
    without a root. "x.tar/member" is a member of an uncompressed archive, and ``root`` may be such an archive
    itself; "x.parquet/7/image" is a cell of a Parquet or Arrow file. A string without a "." is the name of a
    file that is there, else its content in base64, standard or URL-safe (neither alphabet has the dot). A ``Path``
    is a path with or without a dot.
    A relative ``root`` that is not below the working directory is looked up below ``table_dir``.

    It can be pickled and used in any number of worker processes.
    Every method raises MediaError for media that is absent or cannot be decoded.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        table_dir: str | os.PathLike[str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.table_dir = os.fspath(table_dir) if table_dir is not None else None
        self.root = os.fspath(root) if root is not None else None
        if self.root and self.table_dir and not os.path.exists(self.root):
            self.root = os.path.join(self.table_dir, self.root)
        self.limits = limits
        self.features: Shelf | None = None  # of frozen networks, where a run keeps them
        self.kept: KeptMedia | None = None  # decoded media, likewise

    def open(self, ref: Any) -> bytes | str:
        """The content (tar members, base64) or the path of a reference, decoded by the readers."""
        return self._locate(ref)[0]

    def image(self, ref: Any) -> Image.Image:
        """``unival.media.read_image`` of a reference: mode RGB, upright."""
        return self.draft(ref, None).image

    def draft(self, ref: Any, side: int | None) -> Draft:
        """``unival.media.image.read_draft`` of a reference; media in memory are as they are."""
        from PIL import Image

        from unival.media import image, memory

        if in_memory(ref):
            picture = memory.picture(ref)
            return image.Draft(picture, picture.size)
        key, kept = self._kept(ref, "image", side)
        if kept is not None:
            return image.Draft(Image.fromarray(kept.values), kept.size)
        source, name = self._locate(ref)
        draft = image.read_draft(source, side, limits=self.limits, name=name)
        if self.kept is not None:
            self.kept.put(key, draft.image, draft.size)
        return draft

    def image_size(self, ref: Any) -> tuple[int, int]:
        """(width, height) of the upright image, from its header alone."""
        from unival.media import image

        if in_memory(ref):
            return self.image(ref).size
        source, name = self._locate(ref)
        return image.read_size(source, limits=self.limits, name=name)

    def video(
        self,
        ref: Any,
        num_frames: int,
        sampling: str = "middle",
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """``unival.media.read_video`` of a reference: uint8 (F, h, w, 3)."""
        from unival.media import memory, video

        if in_memory(ref):
            return memory.clip(ref, num_frames, sampling, rng)
        # other frames every time, and the draw of them is the generator's
        key, kept = (None, None) if sampling == "rand" else self._kept(ref, "video", num_frames, sampling)
        if kept is not None:
            return kept.values
        source, name = self._locate(ref)
        frames = video.read_video(source, num_frames, sampling, rng, limits=self.limits, name=name)
        if self.kept is not None:
            self.kept.put(key, frames)
        return frames

    def audio(self, ref: Any, rate: int) -> np.ndarray:
        """``unival.media.read_audio`` of a reference: float32 (N,) at ``rate`` samples a second."""
        from unival.media import audio, memory

        if in_memory(ref):
            return memory.sound(ref, rate, self.limits)
        key, kept = self._kept(ref, "audio", rate)
        if kept is not None:
            return kept.values
        source, name = self._locate(ref)
        wave = audio.read_audio(source, rate, limits=self.limits, name=name)
        if self.kept is not None:
            self.kept.put(key, wave)
        return wave

    def _kept(self, ref: Any, *reading: Any) -> tuple[str | None, KeptMedium | None]:
        """Under what name a medium read so is kept, and what is there."""
        if self.kept is None:
            return None, None
        key = self.kept.key(self.identity(ref), *reading, self.limits)
        return key, self.kept.get(key)

    def identity(self, ref: Any) -> bytes | None:
        """SHA-256 that stays while the medium of a reference does: of its content in base64, or of the path with size
        and time of the file (of the archive for a member); None for media in memory and files that are absent."""
        if isinstance(ref, (bytes, bytearray, memoryview)):
            return hashlib.sha256(bytes(ref)).digest()
        if isinstance(ref, str) and "." not in ref and not self._is_name(ref):
            return hashlib.sha256(ref.encode()).digest()
        if in_memory(ref):
            return None
        path = os.path.join(self.root or self.table_dir or "", os.fspath(ref))
        file = os.path.abspath(path)
        while not os.path.isfile(file):
            if file == os.path.dirname(file):
                return None
            file = os.path.dirname(file)
        found = os.stat(file)
        text = f"{os.path.abspath(path)}\0{found.st_size}\0{found.st_mtime_ns}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).digest()

    def _locate(self, ref: Any) -> tuple[bytes | str, str | None]:
        if isinstance(ref, (bytes, bytearray, memoryview)):
            return bytes(ref), None
        if isinstance(ref, str) and "." not in ref and not self._is_name(ref):
            return _from_base64(ref)
        if in_memory(ref):
            raise MediaError(type(ref).__name__, "is no reference to a file: a path or base64 was expected")
        path = os.fspath(ref)
        if "\0" in path:
            raise MediaError(repr(path), "is not a file name")
        if not os.path.isabs(path):
            base = self.root if self.root is not None else self.table_dir
            path = os.path.join(base, path) if base is not None else path
        if isinstance(path, Member):
            return path.read(), str(path)
        cell = read_cell(path)
        if isinstance(cell, bytes):
            return cell, path
        if cell is not None:  # a path stands there in place of the content
            path = cell if os.path.isabs(cell) else os.path.join(self.root or self.table_dir or "", cell)
        archive, _, member = path.partition(".tar/")
        if member and not os.path.isdir(archive + ".tar"):
            return read_member(existing(archive + ".tar") or archive + ".tar", member), path
        return existing(path) or path, path

    def _is_name(self, text: str) -> bool:
        """Whether a text without a dot is the name of a file that is there; longer ones are not asked for."""
        if not 0 < len(text) <= _LONGEST_NAME or "\0" in text:
            return False
        return os.path.isfile(os.path.join(self.root or self.table_dir or "", text))


def in_memory(ref: Any) -> bool:
    """Whether a medium is an object that holds its content decoded: no path, no base64, no file's bytes."""
    return not isinstance(ref, (str, os.PathLike, bytes, bytearray, memoryview))


def _from_base64(text: str) -> tuple[bytes, str]:
    digits = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    label = text if len(text) <= 40 else f"{text[:16]}... (base64, {len(text)} characters)"
    try:
        data = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(
            label or "''", f"is neither a path (no '.') nor base64 ({error}): give paths their extension"
        ) from error
    if not data:
        raise MediaError("''", "the media column is empty: a path or base64 was expected")
    return data, label
