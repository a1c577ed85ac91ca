"""torch's data-parallel wrapper as fairseq calls it, on a machine without a GPU."""

from __future__ import annotations

from typing import Any

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
