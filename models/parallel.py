"""Data-parallel wrappers as fairseq calls them: torch's on a machine without a GPU, and fairseq's own.

Both leave a parameter that no rank used without a gradient, as a single process does: an optimizer that sees a
gradient of zeros would decay the weight and go on along its momentum.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from fairseq.distributed import legacy_distributed_data_parallel
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class DataParallel(DistributedDataParallel):
    """fairseq names a device for every process; torch refuses one for a model on the CPU."""

    def __init__(
        self, module: nn.Module, device_ids: Any = None, output_device: Any = None, **settings: Any
    ) -> None:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            device_ids = output_device = None
        super().__init__(module, device_ids=device_ids, output_device=output_device, **settings)


class LegacyDataParallel(legacy_distributed_data_parallel.LegacyDistributedDataParallel):
    """fairseq's exchange of gradients after the backward pass, which several forward passes do not disturb."""

    def all_reduce_grads(self) -> None:
        if self.accumulate_grads:
            super().all_reduce_grads()
            return
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
        dist.all_reduce(used, group=self.process_group)
        super().all_reduce_grads()
        for parameter, count in zip(trained, used.tolist(), strict=True):
            if not count:
                parameter.grad = None
