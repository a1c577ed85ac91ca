"""What users hand over as an image, a video or a sound: files, bytes and objects in memory, told apart."""

from __future__ import annotations

import io
import mimetypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from unival.errors import ConfigError, DataError
from unival.media import MediaError
from unival.media.arguments import one_of
from unival.media.loader import MediaLoader
from unival.media.source import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from PIL import Image

_PILLOW = threading.Lock()  # its size limit and Python's warning filters belong to the whole process
MODALITIES = ("image", "video", "audio")
EXPECTED = (
    "a path, bytes, a binary file, a PIL image, an array (h, w, 3) or (F, h, w, 3), a waveform (N,) or "
    "(waveform, rate)"
)


class Inputs(MediaLoader):
    """Media given to one call, one or a list, by number: reference "3" is the fourth of them.

    ``remember`` decodes every medium once, for calls with many texts about one.

    Files are decoded by the readers of tables. Arrays and tensors: uint8, or floating point in 0..1; images
    (h, w), (h, w, 1|3|4) or, for tensors, (3, h, w); videos (F, h, w, 3); sounds (N,) or (channels, N)
    float in -1..1 at the model's own rate, or a pair (sound, rate in Hz).
    Every method raises MediaError for what cannot be read.
    """

    def __init__(self, given: Any, limits: Limits = DEFAULT_LIMITS, remember: bool = False) -> None:
        super().__init__(limits=limits)
        self.several = isinstance(given, list)
        self.given = []
        self._decoded: dict[tuple[Any, ...], Any] | None = {} if remember else None
        for index, one in enumerate(given if self.several else [given]):
            with self.at(index):
                self.given.append(_kept(one))

    @contextmanager
    def at(self, index: int) -> Iterator[None]:
        """Put the number of the list item in front of an error about its medium or its text."""
        try:
            yield
        except MediaError as error:
            if not self.several:
                raise
            raise MediaError(f"item {index}: {error.source}", error.reason) from error
        except (DataError, ConfigError) as error:
            if not self.several:
                raise
            raise type(error)(f"item {index}: {error}") from error

    def image(self, ref: Any) -> Image.Image:
        return self._once(self._image, ref)

    def video(
        self, ref: Any, num_frames: int, sampling: str = "middle", rng: np.random.Generator | None = None
    ) -> np.ndarray:
        return self._once(self._video, ref, num_frames, sampling, rng)

    def audio(self, ref: Any, rate: int) -> np.ndarray:
        return self._once(self._audio, ref, rate)

    def _once(self, decode: Callable[..., Any], *arguments: Any) -> Any:
        if self._decoded is None:
            return decode(*arguments)
        key = (decode.__name__, *arguments)
        if key not in self._decoded:
            self._decoded[key] = decode(*arguments)
        return self._decoded[key]

    def _image(self, ref: Any) -> Image.Image:
        from PIL import Image, ImageOps

        given = self.given[int(ref)]
        if isinstance(given, Image.Image):
            return ImageOps.exif_transpose(given).convert("RGB")
        if is_file(given):
            return self._read("image", given)
        pixels = _pixels(given, image=True)
        if pixels.ndim == 4:
            raise MediaError(describe(given), "is a clip; an image (h, w, 3) was expected")
        return Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels).convert("RGB")

    def _video(self, ref: Any, num_frames: int, sampling: str, rng: np.random.Generator | None) -> np.ndarray:
        from unival.media.frames import frame_indices

        given = self.given[int(ref)]
        if is_file(given):
            return self._read("video", given, num_frames, sampling, rng)
        frames = _pixels(given, image=False)
        if frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
            raise MediaError(describe(given), "a clip in memory is an array (F, h, w, 3)")
        return frames[frame_indices(num_frames, len(frames), sampling, rng)]

    def _audio(self, ref: Any, rate: int) -> np.ndarray:
        import soundfile

        given = self.given[int(ref)]
        if is_file(given):
            return self._read("audio", given, rate)
        wave, found = given if isinstance(given, tuple) else (given, rate)
        samples = _array(wave)
        if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or not samples.size:
            raise MediaError(describe(given), "a sound in memory is a float array (N,) or (channels, N)")
        file = io.BytesIO()
        soundfile.write(file, samples.T.astype(np.float32), int(found), format="WAV", subtype="FLOAT")
        return self._read("audio", file.getvalue(), rate)

    def _read(self, modality: str, given: Any, *rest: Any) -> Any:
        from unival.media import read_audio, read_image, read_video

        if modality == "image":
            with _PILLOW:
                return read_image(given, limits=self.limits)
        return (read_video if modality == "video" else read_audio)(given, *rest, limits=self.limits)

    def modality(self, index: int, asked: str | None = None) -> str:
        """Return the modality of an input, ``asked`` when that is given.

        Objects are told by type and shape, files by their name, else by what opens them.
        """
        if asked is not None:
            one_of("modality", asked, MODALITIES)
            return asked
        given = self.given[index]
        if is_file(given):
            return _modality_of_file(given)
        if isinstance(given, tuple) or getattr(given, "ndim", None) == 1:
            return "audio"
        return "video" if getattr(given, "ndim", 3) == 4 else "image"


def is_file(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike, bytes, bytearray, memoryview))


def describe(given: Any) -> str:
    """Name an input in a message."""
    if isinstance(given, (str, os.PathLike)):
        return str(given)
    if isinstance(given, (bytes, bytearray, memoryview)):
        return f"<{len(given)} bytes>"
    shape = getattr(given, "shape", None)
    return f"<{type(given).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}>"


def _kept(given: Any) -> Any:
    """Return an input that can be read more than once, from any thread: file objects become their bytes.

    Raises MediaError for something that is no medium.
    """
    from PIL import Image

    if is_file(given) or isinstance(given, (Image.Image, np.ndarray)):
        return given
    if isinstance(given, tuple) and len(given) == 2 and hasattr(given[0], "__len__"):
        return given
    if hasattr(given, "read"):
        name = str(getattr(given, "name", None) or describe(given))
        data = given.read()
        if not isinstance(data, bytes):
            raise MediaError(name, "the file object is in text mode: open it with mode 'rb'")
        return data
    if hasattr(given, "detach"):  # a torch tensor
        return given.detach().cpu()
    raise MediaError(describe(given), f"expected {EXPECTED}, not {type(given).__name__}")


def _array(value: Any) -> np.ndarray:
    return value.numpy() if hasattr(value, "detach") else np.asarray(value)


def _pixels(value: Any, image: bool) -> np.ndarray:
    """Return uint8 pixels, channels last."""
    pixels = _array(value)
    if image and pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if image and pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim not in (3, 4) or pixels.shape[-1] not in (1, 3, 4) or not pixels.size:
        raise MediaError(describe(value), f"expected {EXPECTED}")
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype.kind != "f" or not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise MediaError(describe(value), f"pixels are uint8, or floating point in 0..1, not {pixels.dtype}")
    return np.rint(pixels * 255).astype(np.uint8)


def _modality_of_file(given: Any) -> str:
    """Tell by the name of a path; bytes and odd names by the first reader that recognises the content."""
    if isinstance(given, (str, os.PathLike)):
        kind = (mimetypes.guess_type(os.fspath(given))[0] or "").split("/")[0]
        if kind in MODALITIES:
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

    in_memory = not isinstance(given, (str, os.PathLike))
    with pyav().open(_handle(given), options=confined(in_memory)) as container:
        moving = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        return "video" if moving else "audio" if container.streams.audio else None
