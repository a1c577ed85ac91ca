"""What trains and what does not. A frozen network keeps its BatchNorm statistics too."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from unival.core.modalities import NAMES
from unival.modeling.config import PEFT_SWITCHES
from unival.modeling.model import UnIVAL

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# What `freeze_encoder` lets train.
FRONT_ENDS = re.compile(
    r"embed_(image|video|audio)(s|_positions)\.|embed_frame_positions\.|(image|video|audio)_proj\.|layernorm_(image|video|audio)_"
)
BITFIT = re.compile(r"^(encoder|decoder)\.(layers\.\d+\.(\w+_layer_norm|fc[12])|layer_norm)\.bias$")
LINEAR = re.compile(r"^encoder\.(image|video|audio)_proj\.")
ADDED = re.compile(r"(^|\.)(adapter|prefix)\.|\.lora_[ab]$")
# The front end of sound is computed; the classifier of the image network is in the file formats only.
FIXED = re.compile(r"spectrogram_extractor|logmel_extractor|embed_images\.fc\.")


def _train_only(model: nn.Module, wanted: re.Pattern[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(wanted.search(name)))


def _batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, BATCH_NORMS))


def apply_freezing(model: UnIVAL) -> UnIVAL:
    """Set ``requires_grad`` and the modules held in evaluation mode, as ``model.config`` says.

    A network without any trainable parameter is held in evaluation mode as a whole: BatchNorm statistics,
    and its dropout, drop path and SpecAugment too. Works on whole options, so calling it again gives the
    same result. (Reference behaviour for the parameters; its statistics move.)
    """
    freeze, peft = model.config.freeze, model.config.peft
    encoder, decoder = model.encoder, model.decoder
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not FIXED.search(name))
    held: list[nn.Module] = []

    if freeze.freeze_encoder:
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(bool(FRONT_ENDS.match(name)) and not FIXED.search(name))
    if freeze.freeze_decoder:
        decoder.requires_grad_(False)  # with it the token table, where the encoder shares it
    if freeze.freeze_encoder_embedding:
        encoder.embed_tokens.requires_grad_(False)
    if freeze.freeze_decoder_embedding:
        decoder.embed_tokens.requires_grad_(False)
    if freeze.only_linear_proj:
        _train_only(model, LINEAR)
    if freeze.bitfit:
        _train_only(model, BITFIT)
    if any(getattr(peft, switch) for switch in PEFT_SWITCHES) and not peft.unfreeze:
        _train_only(model, ADDED)

    norm_flags = {"image": freeze.freeze_resnet, "video": freeze.freeze_resnet_video, "audio": False}
    for modality in NAMES:
        network = getattr(encoder, f"embed_{modality}s", None)
        if network is None:
            continue
        if getattr(freeze, f"freeze_{modality}_encoder"):
            network.requires_grad_(False)
        if not any(p.requires_grad for p in network.parameters()):
            held.append(network)
        elif norm_flags[modality] or freeze.freeze_batchnorm:
            for norm in _batch_norms(network):
                norm.requires_grad_(False)
                held.append(norm)
    if hasattr(encoder, "sound_picture") and encoder.embed_images in held:
        held.append(encoder.sound_picture)
    encoder.held_in_eval = held
    encoder.train(encoder.training)
    return model
