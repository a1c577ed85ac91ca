"""What trains: the data-parallel backend that a task needs, and a report of parameters that get no gradient."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from omegaconf import open_dict
from torch import nn

from unival.errors import ConfigError

logger = logging.getLogger(__name__)

ONE_FORWARD = ("c10d", "pytorch_ddp")  # backends that watch a single forward pass of each update
_NAMED = 12  # groups of names in a message


def choose_backend(cfg: Any, task: Any) -> None:
    """Set what several processes need: a task uses one modality network of those that a model may have, and a
    backend that waits for all gradients must be told.

    Raises:
        ConfigError: a backend that cannot follow the task.
    """
    distributed = cfg.distributed_training
    if distributed.distributed_world_size <= 1 or distributed.ddp_backend not in ONE_FORWARD:
        return
    if task.several_forwards:
        raise ConfigError(
            "a mixture runs one forward pass per modality group in each update, which "
            f"--ddp-backend {distributed.ddp_backend} cannot follow; give --ddp-backend legacy_ddp"
        )
    with open_dict(distributed):
        distributed.find_unused_parameters = True


def report_gradients(model: nn.Module) -> None:
    """After the first backward pass, name what does not train: frozen tensors, and those without a gradient."""
    named = list(model.named_parameters())
    trained = {name: parameter for name, parameter in named if parameter.requires_grad}
    frozen = [name for name, _ in named if name not in trained]
    unused = [name for name, parameter in trained.items() if parameter.grad is None]
    if frozen:
        logger.info(f"frozen by the options: {grouped(frozen, [name for name, _ in named])}")
    if unused:
        logger.info(
            f"no gradient in the first update: {grouped(unused, trained)}; no row of it uses "
            "them. Where they should train, look at the options of model and task"
        )


def grouped(names: Iterable[str], among: Iterable[str]) -> str:
    """Join names, with one entry ``part.* (n tensors)`` for every part that is named as a whole."""
    chosen, rest = set(names), set(among) - set(names)
    parts: dict[str, int] = {}
    for name in sorted(chosen):
        pieces = name.split(".")
        for depth in range(1, len(pieces)):
            part = ".".join(pieces[:depth]) + "."
            if not any(other.startswith(part) for other in rest):
                parts[f"{part}*"] = parts.get(f"{part}*", 0) + 1
                break
        else:
            parts[name] = 1
    shown = [f"{part} ({count} tensors)" if count > 1 else part for part, count in parts.items()]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more
