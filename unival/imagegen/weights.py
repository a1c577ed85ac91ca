"""Files of VQGAN weights: the published Lightning checkpoints, and those of our own trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unival.core.files import replacing
from unival.core.torchfile import load_torch
from unival.core.yaml_files import read_yaml
from unival.errors import CheckpointError, ConfigError
from unival.imagegen.vqgan import Vqgan, VqganConfig
from unival.modeling.weights import LoadReport, load_into

# What the published files hold beside the network: perceptual loss, discriminator and their statistics.
TRAINING_ONLY = r"^loss\."


def load_vqgan(path: str | Path, config_path: str | Path | None = None) -> tuple[Vqgan, LoadReport]:
    """Read a VQGAN in evaluation mode, without running code in the file.

    Sizes come from ``config_path`` (the published ``model.yaml``), else from the file itself where our trainer
    wrote it, else they are those of ``vqgan_gumbel_f8``. Training-only entries are listed in the report.
    Raises CheckpointError for an absent, unsafe or unsuitable file, ConfigError for a bad configuration.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"the VQGAN weights '{path}' do not exist: give the released 'last.ckpt', or train your own with "
            "'unival data codebook'; nothing is downloaded"
        )
    content = load_torch(path)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"'{path}' is no VQGAN checkpoint: it has no entry 'state_dict'")
    if config_path is not None:
        config = read_config(config_path)
    else:
        stored = content.get("config", {})
        known = {f.name for f in fields(VqganConfig)}
        config = VqganConfig(**{k: v for k, v in stored.items() if k in known})
    model = Vqgan(config)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    try:
        report = load_into(model, tensors, allow_unexpected=(TRAINING_ONLY,))
    except CheckpointError as error:
        raise CheckpointError(f"VQGAN weights '{path}': {error}") from None
    return model.eval().requires_grad_(False), report


def read_config(path: str | Path) -> VqganConfig:
    """Read the sizes from the published YAML (``model.params`` with ``ddconfig``, ``embed_dim``, ``n_embed``).

    Raises ConfigError for an absent or unreadable file and for networks that this one is not.
    """
    content = read_yaml(path)
    try:
        params = content["model"]["params"]
        network = dict(params["ddconfig"])
        values: dict[str, Any] = {"embed_dim": params["embed_dim"], "n_embed": params["n_embed"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"'{path}' is no VQGAN configuration with model.params.ddconfig, embed_dim and n_embed "
            f"({type(error).__name__}: {error})"
        ) from None
    for name, fixed in (("in_channels", 3), ("out_ch", 3), ("double_z", False), ("dropout", 0.0)):
        if network.pop(name, fixed) != fixed:
            raise ConfigError(f"'{path}': ddconfig.{name} must be {fixed} in a GumbelVQ of pictures")
    known = {f.name for f in fields(VqganConfig)}
    unknown = sorted(set(network) - known)
    if unknown:
        raise ConfigError(f"'{path}': ddconfig has unknown entries: {', '.join(unknown)}")
    return VqganConfig(**values, **network)


def save_vqgan(model: Vqgan, path: str | Path, **about: Any) -> None:
    """Write weights and sizes to one file, in place of the old one only when complete."""
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(model.sizes).items()}
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    with replacing(path) as part:
        torch.save({"state_dict": state, "config": config, **about}, part)
