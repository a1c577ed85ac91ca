"""Building a network without drawing the random weights that a checkpoint is about to replace."""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode

DRAWS = {
    f"{name}_"
    for name in (
        "normal",
        "uniform",
        "trunc_normal",
        "kaiming_normal",
        "kaiming_uniform",
        "xavier_normal",
        "xavier_uniform",
    )
}


class Undrawn(TorchFunctionMode):
    """Within this context random initialisation leaves memory as it is, in this thread alone.

    For models that are then loaded strictly, so that every such weight is overwritten: of a base-size model
    nearly all of the time to construct it is drawing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
