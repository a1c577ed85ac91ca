"""Data-parallel wrappers as the engine builds them: ``c10d`` (``pytorch_ddp``) and ``legacy_ddp`` (``no_c10d``).

Both leave a parameter that no rank used without a gradient, as a single process does: an optimizer that sees a
gradient of zeros would decay the weight and go on along its momentum. Buffers stay those of each rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from fairseq.distributed import legacy_distributed_data_parallel
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

_ALIGNED = 64  # bytes; kernels read whole vectors of a gradient
# The order in which a backward pass completes gradients: what stands outside the layers serves all of them, and the
# networks run first. A bucket waits for those before it: the token table would wait for a network.
_STAGES = tuple(
    re.compile(names)
    for names in (
        r"decoder\.layers\.",
        r"decoder\.",
        r"encoder\.layers\.",
        r"(?!encoder\.embed_(image|video|audio)s\.)",
        "",
    )
)


class Bucket:
    """Gradients of one type on one device that travel together."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.awaited = 0  # gradients that the backward pass still has to give
        self.flat: Tensor | None = None  # what travels
        step = _ALIGNED // parameters[0].element_size()
        self._starts, self._size = [], 0
        for parameter in parameters:
            self._starts.append(self._size)
            self._size += -(-parameter.numel() // step) * step

    def send(self, group: Any, world_size: int) -> Any:
        """Take the gradients of the parameters, zeros where there are none, and begin to sum them over the ranks."""
        self.flat = self.parameters[0].new_zeros(self._size)
        places = zip(self.views(), self.parameters, strict=True)
        held = [(place, parameter.grad) for place, parameter in places if parameter.grad is not None]
        if held:
            torch._foreach_copy_([place for place, _ in held], [gradient for _, gradient in held])
            self.flat.div_(world_size)
        for parameter in self.parameters:
            parameter.grad = None  # its memory serves the rest of the backward pass
        return dist.all_reduce(self.flat, group=group, async_op=True)

    def views(self) -> Iterator[Tensor]:
        """The place of each gradient in what travels, laid out like its parameter."""
        assert self.flat is not None
        for parameter, start in zip(self.parameters, self._starts, strict=True):
            yield self.flat.as_strided(parameter.shape, parameter.stride(), start)


class DataParallel(nn.Module):
    """Sums gradients over the ranks in buckets, each sent while the backward pass goes on.

    In the place of torch's, which watches one forward pass of an update (a mixture has one for each group of rows) and
    ends the run where a rank takes a gradient of zeros instead of a loss that is not finite. The engine calls it like
    its own: ``no_sync`` around all backward passes of an update but the last, ``all_reduce_grads`` behind that. Buckets
    leave in one order on all ranks, each when the last backward pass has given what it will give to the parameters in
    it; the autograd engine knows which those are, on this rank and in this update.
    """

    def __init__(
        self, module: nn.Module, process_group: Any = None, bucket_cap_mb: float = 25, **_: Any
    ) -> None:
        super().__init__()
        self.module = module
        self.process_group = process_group
        self.world_size = dist.get_world_size(process_group)
        self.accumulate_grads = False
        self.trained = in_order_of_completion(module)
        self.buckets = cut(self.trained, int(bucket_cap_mb * 2**20))
        self._home: dict[Tensor, Bucket] = {
            parameter: bucket for bucket in self.buckets for parameter in bucket.parameters
        }
        # Held, so that all passes meet in the same node of a parameter.
        self._nodes = {parameter: get_gradient_edge(parameter).node for parameter in self.trained}
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self._arrived)
        self._forget()
        # A difference at the start would never be seen: gradients are sums, so the norms agree.
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor, self._first(), group=process_group)

    def _first(self) -> int:
        """The rank whose weights all begin with."""
        return dist.get_global_rank(self.process_group, 0) if self.process_group is not None else 0

    def _forget(self) -> None:
        """Be ready for the next update."""
        self._begun = self._ended = False
        self._failed = False  # whether this rank has given up a pass
        self._sent = 0
        self._works: list[Any] = []
        self._used: set[Tensor] = set()  # parameters with a gradient of this rank
        self._counts: Tensor | None = None

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients of backward passes inside stay on their rank until the update's last one."""
        before, self.accumulate_grads = self.accumulate_grads, True
        try:
            yield
        finally:
            self.accumulate_grads = before

    def _arrived(self, parameter: Tensor) -> None:
        """A backward pass has completed a gradient."""
        if self.accumulate_grads:
            return
        if not self._begun:
            self._begin()
        bucket = self._home[parameter]
        bucket.awaited -= 1
        if not bucket.awaited:
            self._send()

    def _begin(self) -> None:
        """Count what the running backward pass will give; called by its first gradient."""
        if self._ended:
            raise RuntimeError(
                "a second backward pass of an update outside no_sync(): its gradients would be lost"
            )
        self._begun = True
        awaited = torch._C._will_engine_execute_node
        for bucket in self.buckets:
            bucket.awaited = sum(awaited(self._nodes[parameter]) for parameter in bucket.parameters)
        torch.autograd.Variable._execution_engine.queue_callback(self._end)

    def _send(self) -> None:
        while self._sent < len(self.buckets) and not self.buckets[self._sent].awaited:
            bucket = self.buckets[self._sent]
            self._used.update(parameter for parameter in bucket.parameters if parameter.grad is not None)
            self._works.append(bucket.send(self.process_group, self.world_size))
            self._sent += 1

    def _end(self) -> None:
        """After the backward pass, send what is left and which parameters this rank used. (Here and not when the sums
        are asked for: what other exchanges come between is the same on all ranks.)"""
        for bucket in self.buckets:
            bucket.awaited = 0  # a parameter in the graph to which no gradient flowed
        self._send()
        counts = [float(parameter in self._used) for parameter in self.trained]
        self._counts = torch.tensor([*counts, float(self._failed)], device=self.trained[0].device)
        self._works.append(dist.all_reduce(self._counts, group=self.process_group, async_op=True))
        self._begun, self._ended = False, True

    def give_up(self) -> None:
        """This rank could not finish a pass: the others must not wait for it, and the update is left out on all of them
        (no parameter gets a gradient)."""
        self._failed = True
        if not self.accumulate_grads and not self._ended:
            self._end()

    def all_reduce_grads(self) -> None:
        """Wait for the sums and give them to the parameters."""
        if self.accumulate_grads:
            return
        if not self._ended:
            self._end()  # no backward pass came to a parameter
        for work in self._works:
            work.wait()
        assert self._counts is not None
        *counts, failed = self._counts.tolist()
        users = dict(zip(self.trained, counts, strict=True))
        for bucket in self.buckets:
            for parameter, view in zip(bucket.parameters, bucket.views(), strict=True):
                parameter.grad = view if users[parameter] and not failed else None
            bucket.flat = None  # the gradients hold it
        self._forget()


@contextmanager
def giving_up(model: Any) -> Iterator[None]:
    """A pass of an update. The engine goes on after one that a GPU has no memory for: ranks that are exchanging
    gradients must not wait for this one."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" in str(error) and hasattr(model, "give_up"):
            model.give_up()
        raise


def in_order_of_completion(module: nn.Module) -> list[nn.Parameter]:
    """Trained parameters, those first whose gradients a backward pass completes first: of each stage the last."""
    stages: list[list[nn.Parameter]] = [[] for _ in _STAGES]
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            stage = next(number for number, names in enumerate(_STAGES) if names.match(name))
            stages[stage].insert(0, parameter)
    return [parameter for stage in stages for parameter in stage]


def cut(parameters: Iterable[nn.Parameter], limit: int) -> list[Bucket]:
    """Cut parameters, in order, into buckets of at most ``limit`` bytes (a larger parameter has one of its own)."""
    parts: list[list[nn.Parameter]] = []
    filling: dict[tuple[torch.dtype, torch.device], tuple[list[nn.Parameter], int]] = {}
    for parameter in parameters:
        kind = parameter.dtype, parameter.device
        part, size = filling.get(kind, ([], limit))
        if size + parameter.nbytes > limit:
            part, size = [], 0
            parts.append(part)
        part.append(parameter)
        filling[kind] = part, size + parameter.nbytes
    return [Bucket(part) for part in parts]


class LegacyDataParallel(legacy_distributed_data_parallel.LegacyDistributedDataParallel):
    """fairseq's exchange after the backward pass, of all gradients in one buffer of the first parameter's type."""

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
