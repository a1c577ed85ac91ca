"""Images: any file Pillow reads, to upright 8-bit RGB."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from unival.media.source import DEFAULT_LIMITS, Limits, MediaError, Opened, Source, open_source, reading

# Pillow runs an external program (Ghostscript) on these.
_REFUSED_FORMATS = {"EPS"}
_ORIENTATION = 0x0112  # EXIF tag
_DRAFT_GAP = 2  # sides of a draft are so many times those of the resize, which then differs little
# Pillow's size limit and Python's warning filters belong to the whole process.
_process_wide = threading.Lock()


def _renew_lock() -> None:
    global _process_wide
    _process_wide = threading.Lock()


if hasattr(os, "register_at_fork"):  # a data worker may be forked while another thread reads a picture
    os.register_at_fork(after_in_child=_renew_lock)


class Draft(NamedTuple):
    """An image that may be smaller than its original, whose (width, height) is ``size``."""

    image: Image.Image
    size: tuple[int, int]


def read_image(source: Source, *, limits: Limits = DEFAULT_LIMITS, name: str | None = None) -> Image.Image:
    """Read one image as mode "RGB", EXIF orientation applied, first frame of animations.

    Opaque 8-bit images give exactly Pillow's ``convert("RGB")`` (reference behaviour). Transparent
    pixels are composited over white, because the colour below a transparent pixel is arbitrary.
    16-bit and floating-point images are scaled to 8 bits instead of being clipped.
    Raises MediaError, also for truncated files and for more pixels than ``limits.image_pixels``.
    """
    return read_draft(source, None, limits=limits, name=name).image


def read_draft(
    source: Source, side: int | None, *, limits: Limits = DEFAULT_LIMITS, name: str | None = None
) -> Draft:
    """Read one image as ``read_image`` does, for a resize to sides of about ``side`` pixels.

    A JPEG file is decoded at a half, a quarter or an eighth (draft mode) where both sides stay at least twice ``side``;
    all other files, and all with None, as they are.
    """
    opened = open_source(source, name)
    with reading(opened.name), _pillow_limit(limits.image_pixels):
        try:
            return _read(opened, side, limits)
        except Image.DecompressionBombError as error:
            found = re.search(r"\d+ pixels", str(error))
            raise _too_large(opened.name, found[0] if found else "too many", limits) from error
        except Image.UnidentifiedImageError as error:
            raise MediaError(opened.name, "is not an image of a format that Pillow reads") from error


def read_size(source: Source, *, limits: Limits = DEFAULT_LIMITS, name: str | None = None) -> tuple[int, int]:
    """Return (width, height) of the upright image from its header alone. Raises MediaError as read_image."""
    opened = open_source(source, name)
    with reading(opened.name), _pillow_limit(limits.image_pixels), Image.open(opened.handle()) as image:
        _check_header(opened, image, limits)
        width, height = image.size
        sideways = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return (height, width) if sideways else (width, height)


def _read(opened: Opened, side: int | None, limits: Limits) -> Draft:
    with Image.open(opened.handle()) as image:
        _check_header(opened, image, limits)
        width, height = image.size
        if side is not None:
            image.draft(None, (_DRAFT_GAP * side, _DRAFT_GAP * side))
        image.load()
        upright = to_upright_rgb(image)
        sideways = upright.size != image.size
        return Draft(upright, (height, width) if sideways else (width, height))


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded image of any mode as a new one, as :func:`read_image` describes."""
    rgb = _to_rgb(_upright(image))
    # A copy is a plain image; the original still belongs to its format's plugin and closed file.
    return rgb.copy() if rgb is image else rgb


def _check_header(opened: Opened, image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if image.format in _REFUSED_FORMATS:
        raise MediaError(opened.name, f"{image.format} images are not read: convert it to PNG or JPEG")
    if width < 1 or height < 1:
        raise MediaError(opened.name, f"the image has no pixels ({width} x {height})")
    if width * height > limits.image_pixels:
        raise _too_large(opened.name, f"{width} x {height} = {width * height} pixels", limits)


def _too_large(name: str, size: str, limits: Limits) -> MediaError:
    return MediaError(
        name,
        f"{size}, the limit is {limits.image_pixels}: "
        "shrink the image or raise the limit (Limits.image_pixels)",
    )


@contextlib.contextmanager
def _pillow_limit(pixels: int) -> Iterator[None]:
    """Set Pillow's own limit, which also guards what plugins allocate while opening and loading."""
    with _process_wide:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = pixels
        try:
            with warnings.catch_warnings():
                # What Pillow says about damaged metadata it can live without, and about sizes checked here.
                warnings.simplefilter("ignore")
                yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _upright(image: Image.Image) -> Image.Image:
    try:
        lies = image.getexif().get(_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(image) if lies else image
    except Exception:
        # A damaged EXIF block says nothing about the orientation; the pixels are fine.
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return _scaled(image).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _over_white(image)
    return image if mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Map a one-channel image of more than 8 bits to 0..255.

    16-bit modes: 0..65535. "I": as 16 bits when the values need and fit them, as they are when they
    fit 8 bits. "F": 0..1 or 0..255 when the values fit. Anything else: smallest to largest value.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values - low) * (255.0 / max(high - low, 1e-30))
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8), "L")
