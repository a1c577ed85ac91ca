"""What trains: options of the exchange of gradients, and a report of parameters that get none."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from torch import nn

from unival.errors import ConfigError

logger = logging.getLogger(__name__)

_NAMED = 12  # groups of names in a message


def check_backend(cfg: Any) -> None:
    """See that several processes exchange what ``--ddp-backend`` can.

    Raises:
        ConfigError: an option of torch's exchange, in whose place our own stands (``models/parallel.py``).
    """
    distributed = cfg.distributed_training
    if distributed.distributed_world_size <= 1 or distributed.ddp_backend not in ("c10d", "pytorch_ddp"):
        return
    if distributed.ddp_comm_hook != "none":
        raise ConfigError(
            f"--ddp-comm-hook {distributed.ddp_comm_hook}: gradients travel in their own type; leave it out, and give "
            "--bf16 or --fp16 to send half as much"
        )
    if distributed.broadcast_buffers:
        raise ConfigError(
            "--broadcast-buffers: statistics of BatchNorm stay those of each process; leave it out, and give --sync-bn "
            "(GPUs) or --freeze-batchnorm instead"
        )


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
