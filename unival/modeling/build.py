"""From options to a model."""

from __future__ import annotations

import logging
from typing import Any

from unival.core.modalities import NAMES
from unival.modeling.config import ModelConfig
from unival.modeling.freezing import apply_freezing
from unival.modeling.model import UnIVAL

logger = logging.getLogger(__name__)


def build_model(arch: str = "unival_base", vocab_size: int = 59457, **options: Any) -> UnIVAL:
    """Return a freshly initialised model of a named size, options named as the reference's.

    ``resnet_model_path``, ``image_backbone_weights``, ``video_model_path`` and ``audio_model_path`` name local
    files with pretrained networks; nothing is downloaded but by ``image_backbone_weights="pretrained"``.
    Raises ConfigError for options that cannot work.
    """
    return build_from_config(ModelConfig.from_options(arch, vocab_size, **options))


def build_from_config(config: ModelConfig, kind: type[UnIVAL] = UnIVAL) -> UnIVAL:
    """Return a freshly initialised model, pretrained networks loaded (what of each file was taken is logged),
    frozen as configured.

    ``kind``: the class to build, a subclass for an engine that needs its own base class.
    """
    model = kind(config)
    for modality in NAMES:
        path = config.network_weights(modality)
        network = getattr(model.encoder, f"embed_{modality}s", None)
        if path and network is not None:
            from unival.modeling.pretrained import load_network

            report = load_network(network, path, config.audio.mel_bank)
            logger.info(f"{modality} network from {path}: {report}")
    return apply_freezing(model)
