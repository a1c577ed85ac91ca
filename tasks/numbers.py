"""What a step says of itself, brought from the device in one piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def host_numbers(loss: torch.Tensor, log: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
    """Return the loss and a criterion's statistics as plain numbers.

    All of them in one question: a GPU answers the second one no sooner than the first, but each makes it wait.
    """
    names = [
        name
        for name, value in log.items()
        if isinstance(value, torch.Tensor) and value.numel() == 1 and value.device == loss.device
    ]
    tensors = [loss.detach().sum(), *(log[name].detach().reshape(()) for name in names)]
    # float64 holds every float32 and every count
    value, *values = torch.stack([tensor.double() for tensor in tensors]).tolist()
    return value, {**log, **dict(zip(names, values, strict=True))}
