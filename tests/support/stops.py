"""Finds the places where a GPU would stop: questions of the host to a tensor, plain copies of its numbers to a device.

No GPU is needed. Every tensor counts as one of the device but for those that are known to be the host's: made of its
numbers without naming a device, or brought there. What stops is told by the operation alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(f"{ROOT / name}/" for name in ("unival", "models", "tasks", "criterions"))
TRANSFERS = str(ROOT / "unival" / "core" / "transfers.py")

# The size of the result, or the result itself, is a number that only the device knows.
ASKING = {
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "nonzero_numpy", "argwhere", "masked_select",
        "_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "bincount", "histc",
        "lift_fresh", "lift_fresh_copy",
    )
}  # fmt: skip
INDEXING = {
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_unsafe_index",
}
# Without an operation of their own on a CPU.
QUESTIONS = {
    getattr(Tensor, name): name
    for name in (
        "cpu",
        "numpy",
        "tolist",
        "item",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "__array__",
    )
}
MADE: dict[Any, str] = {torch.tensor: "tensor", torch.as_tensor: "as_tensor", Tensor.new_tensor: "new_tensor"}
# Made on the device that they are told, without any numbers of the host.
EMPTY = {
    torch.arange,
    torch.empty,
    torch.eye,
    torch.full,
    torch.linspace,
    torch.ones,
    torch.rand,
    torch.randn,
    torch.zeros,
}


def place(what: str) -> str | None:
    """Where the innermost code of ours stands, with what it does; None where it copies without a stop."""
    frame: Any = sys._getframe(1)
    transfer = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name == TRANSFERS:
            transfer = frame.f_code.co_name
        elif name.startswith(OURS):
            if transfer == "to_device" or (transfer == "to_host" and what != "cpu"):  # its two halves are one
                return None
            return f"{Path(name).relative_to(ROOT)}, {frame.f_code.co_name}: {transfer or what}"
        frame = frame.f_back
    return f"elsewhere: {what}"


class Stops(TorchDispatchMode):
    """Counts them by their places, in ``found``, while the block runs; backward passes on a CPU included."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._functions = _Functions(self)

    def __enter__(self) -> Stops:
        self._from_numpy = torch.from_numpy
        torch.from_numpy = self._host_tensor  # no mode sees it
        self._functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)
        torch.from_numpy = self._from_numpy

    def _host_tensor(self, array: Any) -> Tensor:
        with _disable_current_modes():
            return self._functions.of_host(self._from_numpy(array))

    def note(self, what: str) -> None:
        where = place(what)
        if where is not None:
            self.found[where] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in ASKING:
            self.note(name)
        elif name in INDEXING and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            self.note(f"{name} with a mask")
        elif func is torch.ops.aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
            self.note(name)
        return func(*args, **kwargs)


class _Functions(TorchFunctionMode):
    """Looks at whole calls; what they do inside is not looked at again."""

    def __init__(self, stops: Stops) -> None:
        super().__init__()
        self.stops = stops
        self.host: Any = WeakTensorKeyDictionary()

    def of_host(self, result: Any) -> Any:
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.host[tensor] = True
        return result

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        hosts = bool(tensors) and all(tensor in self.host for tensor in tensors)
        device = func in (Tensor.to, Tensor.cuda) and any(
            isinstance(value, str | torch.device | Tensor) for value in (*args[1:], *kwargs.values())
        )
        if device and args[0] in self.host:
            if not kwargs.get("non_blocking"):
                self.stops.note("copied to the device")
            return func(*args, **kwargs)
        if func in MADE and (kwargs.get("device") is not None or (func is Tensor.new_tensor and not hosts)):
            self.stops.note(MADE[func])
        elif func is Tensor.__setitem__ and not isinstance(args[2], Tensor):
            # behind slices a number is filled in, elsewhere it is first made a tensor of the host
            if not hosts and _single(args[1], args[0].dim()):
                self.stops.note("a number put at indices")
        elif func in QUESTIONS and not hosts:
            self.stops.note(QUESTIONS[func])
        elif not hosts and func not in MADE and (func not in EMPTY or kwargs.get("device") is not None):
            return func(*args, **kwargs)
        with _disable_current_modes():
            result = func(*args, **kwargs)
            result = result.view_as(result) if func is Tensor.cpu else result  # here it is the same tensor
        made_there = (
            (func in MADE or func in EMPTY) and kwargs.get("device") is None and (hosts or not tensors)
        )
        return self.of_host(result) if hosts or made_there or func is Tensor.cpu else result


def _single(index: Any, dims: int) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    one = len(parts) == dims and all(isinstance(part, int) for part in parts)
    return one or any(isinstance(part, Tensor | list) for part in parts)
