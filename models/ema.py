"""Exponential moving average of the weights, right for tied tensors and integer buffers."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.models.ema.ema import EMA
from torch import nn


class WeightAverage(EMA):
    """fairseq's EMA with two repairs.

    The engine's step multiplies integer buffers by a float, which torch refuses, and visits a tied
    tensor once per name, so that the shared embedding (three names) would decay three times as fast.
    Here integer buffers are copied and every tensor is averaged once.
    """

    @torch.no_grad()
    def _step_internal(self, new_model: nn.Module, updates: int | None = None) -> None:
        own = self.model.state_dict()
        averaged: dict[str, Any] = self.fp32_params if self.config.ema_fp32 else own
        seen: set[int] = set()
        kept, new = [], []
        for name, value in new_model.state_dict().items():
            target = averaged[name]
            if target.data_ptr() in seen:
                continue
            seen.add(target.data_ptr())
            if value.is_floating_point():
                kept.append(target)
                new.append(value.detach().to(target.dtype))
            else:
                own[name].copy_(value)
        torch._foreach_lerp_(kept, new, 1.0 - self.decay)
        if self.config.ema_fp32:
            for name, value in own.items():
                if value.is_floating_point() and averaged[name].data_ptr() != value.data_ptr():
                    value.copy_(averaged[name])
