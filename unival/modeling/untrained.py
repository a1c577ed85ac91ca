"""Networks of modalities that no file holds: wanted, refused, or marked as never trained."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from unival.errors import ConfigError

logger = logging.getLogger(__name__)


def in_no_file(model: Any, missing: Iterable[str]) -> list[str]:
    """Modalities of the model whose network is neither in the checkpoint, which lacks the keys ``missing``, nor in
    a backbone file."""
    lacking = {key.split(".")[1] for key in missing if key.startswith("encoder.embed_")}
    config = model.config
    return [
        m
        for m in model.modalities
        if f"embed_{config.network_of(m)}s" in lacking and not config.network_weights(m)
    ]


def untrained(
    random: Mapping[str, str], held: Mapping[str, str], start: str | None, from_scratch: bool
) -> list[str]:
    """Return the networks that start from random weights and that no row of the run will train.

    ``random``: modalities in no file, each with the option that names one; ``held``: modalities of the rows, each with
    what needs it; ``start``: the checkpoint that the run starts from; ``from_scratch``: random networks are wanted.

    Raises:
        ConfigError: a network that rows need is random, and that was not asked for.
    """
    needed = [modality for modality in random if modality in held]
    if needed and not from_scratch:
        modality = needed[0]
        lacks = f"'{start}' has none" if start else "the run starts from no checkpoint"
        flag = "--" + random[modality].replace("_", "-")
        raise ConfigError(
            f"{held[modality]} needs the {modality} network, and no file holds it: {lacks}, and {flag} is not given. "
            f"Start from a checkpoint that has it (--finetune-from-model), name the file of the network alone "
            f"({flag}), or give --networks-from-scratch to train it from random weights."
        )
    for modality in needed:
        logger.info(f"the {modality} network starts from random weights (--networks-from-scratch)")
    return [modality for modality in random if modality not in held]
