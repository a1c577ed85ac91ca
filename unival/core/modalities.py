"""The modalities beside text: names, patch types, keys of a batch. Written here once.

A batch says per row which modality it carries by its patch type (reference behaviour): the place in
``MODALITIES``, or ``TEXT_ONLY``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TEXT_ONLY = -1
ModalityName = Literal["image", "video", "audio"]


@dataclass(frozen=True)
class Modality:
    """``shape`` is that of the batch's tensor, in the project's alphabet; ``title`` is for people.

    ``float32``: the tensor keeps its precision in half-precision models (a waveform's samples do not fit
    eight bits of mantissa; its network computes the spectrogram in float32).
    """

    name: str
    title: str
    shape: tuple[str, ...]
    float32: bool = False

    @property
    def key(self) -> str:
        """Name of the tensor in ``net_input``."""
        return f"patch_{self.name}s"

    @property
    def kept_key(self) -> str:
        """Name of the tensor of kept features in ``net_input``."""
        return f"kept_{self.name}s"


MODALITIES = {
    "image": Modality("image", "Image", ("B", "3", "h", "w")),
    "video": Modality("video", "Video", ("B", "3", "F", "h", "w")),
    "audio": Modality("audio", "Sound", ("B", "N"), float32=True),
}
NAMES = tuple(MODALITIES)
PATCH_TYPES = {name: code for code, name in enumerate(NAMES)}
KEYS = tuple(modality.key for modality in MODALITIES.values())
KEPT_KEYS = tuple(modality.kept_key for modality in MODALITIES.values())
FLOAT32_KEYS = frozenset(modality.key for modality in MODALITIES.values() if modality.float32)


def patch_type(name: str | None) -> int:
    """Return the patch type of a modality, ``TEXT_ONLY`` for None."""
    return TEXT_ONLY if name is None else PATCH_TYPES[name]


def encoder_parts(modality: str) -> tuple[str, ...]:
    """Names of the encoder's modules that a modality alone has. (The positions of images serve generated ones too.)"""
    own: dict[str, tuple[str, ...]] = {
        "image": (),
        "video": ("embed_video_positions", "embed_frame_positions"),
        "audio": ("embed_audio_positions", "sound_picture"),
    }
    return (f"embed_{modality}s", f"{modality}_proj", f"layernorm_{modality}_embedding", *own[modality])
