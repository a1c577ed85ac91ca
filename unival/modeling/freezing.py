"""What trains and what does not. A frozen network keeps its BatchNorm statistics too."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from unival.modeling.inputs import MODALITIES
from unival.modeling.model import UnIVAL

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Parts of the encoder that `freeze_encoder` leaves trainable.
OPEN = re.compile(
    r"embed_(image|video|audio)(s|_positions)\.|(image|video|audio)_proj\.|layernorm_(image|video|audio)_"
)
BITFIT = re.compile(r"(layer_norm|fc).*bias")
ADDED = re.compile(r"(^|\.)(adapter|prefix)\.")
FIXED = re.compile(r"spectrogram_extractor|logmel_extractor")


def _train_only(model: nn.Module, wanted: re.Pattern[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(wanted.search(name)))


def _batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, BATCH_NORMS))


def apply_freezing(model: UnIVAL) -> UnIVAL:
    """Set ``requires_grad`` and the modules held in evaluation mode, as ``model.config`` says.

    Works on whole options, so calling it again gives the same result.
    """
    freeze, peft = model.config.freeze, model.config.peft
    encoder, decoder = model.encoder, model.decoder
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not FIXED.search(name))
    held: list[nn.Module] = []

    if freeze.freeze_encoder:
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(bool(OPEN.match(name)) and not FIXED.search(name))
    if freeze.freeze_decoder:
        decoder.requires_grad_(False)
        if not freeze.freeze_encoder and model.config.transformer.share_all_embeddings:
            encoder.embed_tokens.requires_grad_(True)
    if freeze.freeze_encoder_embedding:
        encoder.embed_tokens.requires_grad_(False)
    if freeze.freeze_decoder_embedding:
        decoder.embed_tokens.requires_grad_(False)
    if freeze.only_linear_proj:
        _train_only(model, re.compile(r"^encoder\.(image|video|audio)_proj\."))
    if freeze.bitfit:
        _train_only(model, BITFIT)
    if (peft.adapter or peft.encoder_prompt or peft.decoder_prompt) and not peft.unfreeze:
        _train_only(model, ADDED)

    norm_flags = {"image": freeze.freeze_resnet, "video": freeze.freeze_resnet_video, "audio": False}
    for modality in MODALITIES:
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
    encoder.held_in_eval = held
    encoder.train(encoder.training)
    return model
