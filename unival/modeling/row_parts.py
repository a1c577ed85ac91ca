"""Networks of media in evaluation on a CPU: a batch goes through them in parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Of input, for a thread: one or two pictures of 384 pixels. The maps of more lie beyond the 32 MB that glibc hands out
# again at best; then the system clears pages anew for every layer, 0.4 of the network's time (docs/performance.md).
BYTES = 2**22


def by_parts(network: Callable[[Tensor], Tensor], media: Tensor) -> Tensor:
    """``network`` of media (n, ...) -> (n, C, *grid), whose rows do not depend on each other.

    Whole where it learns, whose norms see the batch, and on devices other than a CPU.
    """
    on_cpu = media.device.type == "cpu" and not torch.compiler.is_compiling()
    if torch.is_grad_enabled() or not on_cpu or not len(media):
        return network(media)
    size = max(1, BYTES * torch.get_num_threads() // max(1, media[0].nbytes))
    if size >= len(media):
        return network(media)
    return torch.cat([network(part) for part in media.split(size)])
