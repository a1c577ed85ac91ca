"""Reading images, videos and audio clips, and turning them into model input.

Every name below is loaded on first use: importing this package costs nothing, and PyAV is first
imported in the process that decodes (a DataLoader worker), never in its parent.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unival.media.audio import read_audio as read_audio
    from unival.media.frames import frame_indices as frame_indices
    from unival.media.image import read_image as read_image
    from unival.media.loader import MediaLoader as MediaLoader
    from unival.media.source import Limits as Limits
    from unival.media.source import MediaError as MediaError
    from unival.media.transforms_audio import audio_eval as audio_eval
    from unival.media.transforms_audio import audio_train as audio_train
    from unival.media.transforms_image import Grounded as Grounded
    from unival.media.transforms_image import grounding_eval as grounding_eval
    from unival.media.transforms_image import grounding_train as grounding_train
    from unival.media.transforms_image import image_eval as image_eval
    from unival.media.transforms_image import image_train as image_train
    from unival.media.transforms_image import normalisation as normalisation
    from unival.media.transforms_video import video_eval as video_eval
    from unival.media.transforms_video import video_train as video_train
    from unival.media.video import read_video as read_video

_HOME = {
    "MediaError": "source",
    "Limits": "source",
    "read_image": "image",
    "read_video": "video",
    "read_audio": "audio",
    "frame_indices": "frames",
    "MediaLoader": "loader",
    "image_eval": "transforms_image",
    "image_train": "transforms_image",
    "grounding_eval": "transforms_image",
    "grounding_train": "transforms_image",
    "Grounded": "transforms_image",
    "normalisation": "transforms_image",
    "video_eval": "transforms_video",
    "video_train": "transforms_video",
    "audio_eval": "transforms_audio",
    "audio_train": "transforms_audio",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'unival.media' has no attribute '{name}'")
    return getattr(importlib.import_module(f"unival.media.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
