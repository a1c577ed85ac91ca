"""Regions: functions of a module and its tensors that ask the host for nothing, so that a compiler takes each of them
whole. Who trains puts a compiled version in (``--compile``, :mod:`unival.tasks.compiling`); names in state dicts do not
know of it, and neither do copies of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

REGIONS: list[Region] = []  # of all modules that are imported


@dataclass
class Region:
    """``function``: the region as written. ``every_size``: batches differ in any size of its tensors, else only in the
    first size of the first one. ``compiled``: what runs in place of the function where gradients are asked for; a
    validation, whose sizes are others again, would be compiled for a few batches."""

    function: Callable[..., Any]
    every_size: bool
    compiled: Callable[..., Any] | None = None

    def __call__(self, *inputs: Any) -> Any:
        if self.compiled is None or not torch.is_grad_enabled():
            return self.function(*inputs)
        return self.compiled(*inputs)


def region(every_size: bool) -> Callable[[Callable[..., Any]], Region]:
    """Make a function a :class:`Region` and list it."""

    def listed(function: Callable[..., Any]) -> Region:
        made = Region(function, every_size)
        REGIONS.append(made)
        return made

    return listed
