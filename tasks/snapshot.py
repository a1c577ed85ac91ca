"""A training state as it is at one moment, in memory of its own, for a writer that works while updates go on.

The memory is not handed on to processes forked meanwhile. Data workers would hold on to all of it until their epoch
ends, long after the file is written.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fairseq import utils

from unival.core.free_memory import free_memory

_ALIGNED = 64  # bytes
_HALF = (torch.float16, torch.bfloat16)
_SHARE = 0.5  # of the free memory that a copy may take


class Memory:
    """Memory for one copy after another. Between two of them the system may take it back when it is short of it; pages
    that are there still are filled in a quarter of the time that new ones take."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None

    def pieces(self, sizes: list[int]) -> Iterator[torch.UntypedStorage]:
        """Storages of these sizes; what was there before must be in use no more."""
        total = sum(map(_aligned, sizes))
        if total and (self._map is None or len(self._map) != total):
            self._map = mmap.mmap(-1, total, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._advise("MADV_DONTFORK")
        start = 0
        for size in sizes:
            if size and self._map is not None:
                yield torch.frombuffer(
                    self._map, dtype=torch.uint8, count=size, offset=start
                ).untyped_storage()
            else:
                yield torch.UntypedStorage(0)
            start += _aligned(size)

    def release(self) -> None:
        """The copy is in use no more."""
        if self._map is not None and not self._advise("MADV_FREE"):
            self._map = None

    def _advise(self, name: str) -> bool:
        try:
            self._map.madvise(getattr(mmap, name))  # type: ignore[union-attr]
        except (AttributeError, OSError):  # not on this system
            return False
        return True


class Snapshot:
    """What :func:`fairseq.utils.move_to_cpu` would make of a state, with nothing in common with the training.

    Half precision becomes float32; what shares memory on the CPU, such as tied embeddings, shares it in the copy too:
    a file of either is the same. ``nbytes``: what the copy takes.
    """

    def __init__(self, state: Any) -> None:
        self.state = state
        self._tensors: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            self._tensors[id(tensor)] = tensor
            return tensor

        _each(note, state)
        self._sizes = {_place(tensor): _size(tensor) for tensor in self._tensors.values()}
        self.nbytes = sum(map(_aligned, self._sizes.values()))

    def take(self, memory: Memory) -> Any:
        """Copy the state into ``memory``, where it stays until that is released.

        Raises:
            OSError: the system has no memory for it.
        """
        places = dict(zip(self._sizes, memory.pieces(list(self._sizes.values())), strict=True))
        filled: set[Any] = set()
        copies: dict[int, torch.Tensor] = {}
        for key, tensor in self._tensors.items():
            place = _place(tensor)
            like = tensor if _shares(tensor) else _moved(tensor)
            copy = torch.empty(0, dtype=like.dtype)
            copy.set_(places[place], like.storage_offset(), like.size(), like.stride())
            if not _shares(tensor):
                copy.copy_(tensor)
            elif place not in filled:
                filled.add(place)
                places[place].copy_(tensor.untyped_storage())
            if isinstance(tensor, torch.nn.Parameter) and _shares(tensor):
                copy = torch.nn.Parameter(copy, tensor.requires_grad)
            copies[key] = copy.requires_grad_(tensor.requires_grad)
        return _each(lambda tensor: copies[id(tensor)], self.state)


def room_for(nbytes: int) -> bool:
    """Whether a copy of that size leaves memory enough to all else on this machine."""
    free = free_memory(torch.device("cpu"))
    return free is None or nbytes <= _SHARE * free


def _each(function: Callable[[torch.Tensor], torch.Tensor], state: Any) -> Any:
    """The state with ``function`` of every tensor in it. (The engine's function for that leaves a cycle behind, and
    what it is given would live until the garbage collector comes: copies, and states to go back to.)"""
    given = [function]
    try:
        return utils.apply_to_sample(lambda tensor: given[0](tensor), state)
    finally:
        given.clear()


def _shares(tensor: torch.Tensor) -> bool:
    """Whether the engine would write the tensor's own storage, which others may be views of."""
    return tensor.device.type == "cpu" and tensor.dtype not in _HALF


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """Type and layout that the engine would give the tensor, without content."""
    dtype = torch.float32 if tensor.dtype in _HALF else tensor.dtype
    return torch.empty_like(tensor, dtype=dtype, device="meta")


def _place(tensor: torch.Tensor) -> tuple[bool, int]:
    shares = _shares(tensor)
    return shares, tensor.untyped_storage()._cdata if shares else id(tensor)


def _size(tensor: torch.Tensor) -> int:
    return (tensor if _shares(tensor) else _moved(tensor)).untyped_storage().nbytes()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
