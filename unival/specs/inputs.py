"""From a row's media column to the tensor the network reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from unival.errors import ConfigError, DataError
from unival.media.features import Place
from unival.media.loader import MediaLoader
from unival.modeling.config import ImageConfig
from unival.specs.base import Field, is_absent, shorten
from unival.specs.options import SpecOptions
from unival.tables.row import Row

if TYPE_CHECKING:
    from PIL import Image

_DESCRIPTIONS = {
    "image": "image: path, member of the media .tar, or base64",
    "video": "video: path or member of the media .tar",
    "audio": "audio or video with sound: path or member of the media .tar",
}


def media_field(modality: str) -> Field:
    return Field(modality, True, _DESCRIPTIONS[modality], words=False)


# what JSON and YAML hold beside text; anything else is a medium of the Python interface
_NO_MEDIUM = (int, float, list, dict, date, type(None))


def media_reference(row: Row, column: str) -> Any:
    """Return the media reference of a row, or the medium itself where a row of the Python interface holds it.

    DataError when it is missing, blank, or a value that is no reference.
    """
    value = row[column]
    empty = is_absent(value)
    if empty or isinstance(value, _NO_MEDIUM):
        raise DataError(
            "expected a media reference (path, member of a .tar, or base64), "
            + ("the field is empty" if empty else f"got {shorten(value)}"),
            path=row.path,
            line=row.line,
            column=column,
        )
    return value


def media_id(row: Row, column: str) -> str | None:
    """Return the path of a row's medium, shared by all rows about it; None for base64."""
    value = row.get(column)
    return value if isinstance(value, str) and "." in value and len(value) < 512 else None


def load_media(
    row: Row,
    modality: str,
    media: MediaLoader,
    options: SpecOptions,
    rng: np.random.Generator | None,
    training: bool,
    column: str | None = None,
    pretraining: bool = False,
) -> dict[str, Any]:
    """Return ``modality``, ``media`` and ``size`` of an Example; ``kept`` and ``place`` where features are kept.

    Images (3, S, S), videos (3, F, s, s), audio (N,), float32. Augments only in training, with ``rng``, and
    if ``use_dataaug`` is on (left open, it is on in pretraining). Evaluation draws from ``rng`` only when the
    options ask for random frames or crops. Raises DataError and MediaError.
    """
    from unival.media import transforms_image

    reference = media_reference(row, column or modality)
    augment = training and rng is not None and augmenting(options, pretraining)
    mean, std = transforms_image.normalisation(options.imagenet_default_mean_and_std)
    drawn = training and rng is not None
    resize = not options.no_image_transform
    place, known = kept_features(modality, reference, media, options, augment, drawn, resize)
    if known:
        return known
    if modality == "image":
        image, size = read_image(media, reference, options, resize)
        tensor = transforms_image.image_train(
            image,
            options.patch_image_size,
            mean,
            std,
            rng,
            augment=augment,
            resize=resize,
            backend=options.resize_backend,
        )
        return _example(modality, tensor, size, place)
    if modality == "video":
        from unival.media import transforms_video

        sampling = options.sample_type if drawn else options.eval_sample_type
        frames = media.video(reference, options.num_frames, sampling, rng)
        tensor = transforms_video.video_train(
            frames,
            options.patch_frame_size,
            mean,
            std,
            rng,
            augment=augment,
            frame_resize=options.frame_resize,
            order="pretrain" if pretraining else "finetune",
            flip=options.video_flip,
        )
        return _example(modality, tensor, (frames.shape[2], frames.shape[1]), place)
    from unival.media import transforms_audio

    wave = media.audio(reference, options.sample_rate)
    random_crop = options.eval_audio_crop == "rand"
    if drawn or random_crop:
        tensor = transforms_audio.audio_train(wave, options.max_audio_len, rng)
    else:
        tensor = transforms_audio.audio_eval(wave, options.max_audio_len, crop=options.eval_audio_crop)
    whole = len(wave) <= options.max_audio_len  # nothing of it was drawn
    return _example(modality, tensor, None, place if whole or not (drawn or random_crop) else None)


def read_image(
    media: MediaLoader, reference: Any, options: SpecOptions, resize: bool
) -> tuple[Image.Image, tuple[int, int]]:
    """Return the image that is to be resized (cropped without ``resize``), and (width, height) of the original."""
    if resize and options.resize_backend != "pillow":
        return media.draft(reference, options.patch_image_size)
    image = media.image(reference)
    return image, image.size


def _example(modality: str, tensor: Any, size: tuple[int, int] | None, place: Place | None) -> dict[str, Any]:
    loaded = {"modality": modality, "media": tensor, "size": size}
    return loaded if place is None else {**loaded, "place": replace(place, size=size)}


def kept_features(
    modality: str,
    reference: Any,
    media: MediaLoader,
    options: SpecOptions,
    augment: bool,
    drawn: bool,
    resize: bool,
) -> tuple[Place | None, dict[str, Any]]:
    """Return where the features of a medium are kept, None where nothing is or where what the network sees is drawn
    at random, and the fields of its Example if they are there already (else none). ``resize``: images are resized,
    not cropped."""
    sampling = options.sample_type if drawn else options.eval_sample_type
    if media.features is None or augment or (modality == "video" and sampling == "rand"):
        return None, {}
    names = {
        "image": ("patch_image_size", "imagenet_default_mean_and_std", "resize_backend"),
        "video": ("patch_frame_size", "num_frames", "frame_resize", "imagenet_default_mean_and_std"),
        "audio": ("sample_rate", "max_audio_len", "eval_audio_crop"),
    }[modality]
    transform = {name: getattr(options, name) for name in names}
    transform["way"] = sampling if modality == "video" else resize
    place = media.features.place(modality, transform, media.identity(reference))
    found = media.features.get(place)
    if found is None:
        return place, {}
    return place, {"modality": modality, "media": found.features, "size": found.size, "kept": True}


def check_pixels(options: SpecOptions, image: ImageConfig) -> None:
    """Raise ConfigError where pixels would be normalised twice: a network of timm brings mean and deviation."""
    if options.imagenet_default_mean_and_std and image.image_encoder_name == "timm":
        raise ConfigError(
            f"imagenet_default_mean_and_std is on, and image_backbone '{image.image_backbone}' normalises pixels as "
            "it was trained; leave the option out"
        )


def augmenting(options: SpecOptions, pretraining: bool) -> bool:
    return pretraining if options.use_dataaug is None else options.use_dataaug
