"""Memory of a training step, counted from shapes: nothing is computed, so any model fits a laptop."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unival.modeling.joining import as_precision
from unival.modeling.remaking import counting

MIB = 2**20
ADAM_MOMENTS = 2
HEADROOM = 1.1  # what an allocator cannot reuse between tensors of changing sizes
WORKSPACE = 3  # tensors of an operation's backward pass that live beside what is saved: two gradients, a copy


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step on one device.

    weights: the model in its compute type, with buffers and the float32 masters of reduced precision;
    optimizer: its moments; average: the moving average; gradients: all of them at once; activations: what
    the forward pass keeps for the backward pass; inputs: the batch; step: the most that activations,
    gradients and workspace take together at one moment of the backward pass.
    """

    weights: int
    optimizer: int
    average: int
    gradients: int
    activations: int
    inputs: int
    step: int

    @property
    def peak(self) -> int:
        """What stays from step to step, the batch, and the worst moment of the step."""
        return self.weights + self.optimizer + self.average + self.inputs + int(HEADROOM * self.step)

    def lines(self) -> list[str]:
        """Return the parts in MiB, for the terminal."""
        parts = {
            "weights": self.weights,
            "optimizer": self.optimizer,
            "moving average": self.average,
            "inputs": self.inputs,
            f"a step ({self.activations / MIB:,.0f} activations, {self.gradients / MIB:,.0f} gradients)": self.step,
        }
        return [f"  {size / MIB:>9,.0f} MiB  {name}" for name, size in parts.items() if size]


@dataclass(frozen=True)
class Optimizer:
    """What an optimizer keeps in float32 of every parameter that gets a gradient: ``moments`` numbers, and in reduced
    precision a master (``masters``). ``copies``: masters, gradients and moments of all parameters that could train, as
    the engine's own FP16Optimizer holds them."""

    moments: int = ADAM_MOMENTS
    masters: bool = True
    copies: bool = False


class _AsIfTrue(TorchFunctionMode):
    """Tensors without content say yes when they are asked, such as whether a batch has padding."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return True
        return func(*args, **(kwargs or {}))


@dataclass
class Saved:
    """What a forward pass keeps: its bytes, the largest tensor, for each parameter used on the way the bytes that were
    kept before it, which is what still lives when its gradient appears, and the parameters that get a gradient.
    Parameters are named by their ``id``."""

    total: int = 0
    largest: int = 0
    before: dict[int, int] = field(default_factory=dict)
    trained: set[int] = field(default_factory=set)


def forward_saves(model: nn.Module, net_inputs: Sequence[Mapping[str, Any]], device: str = "cpu") -> Saved:
    """Run forward passes of ``model``, which is on the meta device, and count what autograd keeps on a ``device``
    ("cpu", "cuda").

    Several inputs are sub-batches whose losses are summed: all live until the one backward pass. The logits
    count twice: the loss keeps them in float32 until their gradient is there.
    """
    found = Saved()
    storages: dict[int, Any] = {}
    own = {tensor.untyped_storage()._cdata: id(tensor) for tensor in (*model.buffers(), *model.parameters())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata in own:
            found.before.setdefault(own[storage._cdata], found.total)
        elif storage._cdata not in storages:
            storages[storage._cdata] = storage  # held, so that no other storage can take its place
            found.total += storage.nbytes()
            found.largest = max(found.largest, storage.nbytes())
        return tensor

    for net_input in net_inputs:
        with _AsIfTrue(), counting(keep, device):
            logits, _ = model(**_on_meta(net_input))
        found.total += 2 * logits.numel() * 4
        found.trained |= _reached(logits)
    return found


def _reached(output: torch.Tensor) -> set[int]:
    """The parameters that the gradient of a tensor flows to."""
    found, seen, waiting = set(), set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # where gradients are added up
            found.add(id(node.variable))
        waiting += [before for before, _ in node.next_functions]
    return found


def without_content(model: nn.Module) -> nn.Module:
    """Return a copy of a model on the meta device: its shapes, and which tensors are one, take no memory."""
    twins: dict[int, Any] = {}
    for parameter in model.parameters():
        twins[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in model.buffers():
        twins[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(model, twins)


def _on_meta(net_input: Mapping[str, Any]) -> dict[str, Any]:
    # kinds and places of media decide the path, so they keep their content
    kinds = ("patch_types", "patch_rows")
    return {
        name: value.to("meta") if isinstance(value, torch.Tensor) and name not in kinds else value
        for name, value in net_input.items()
    }


def _worst_moment(sizes: Mapping[int, int], saved: Saved) -> int:
    """Walk the backward pass: gradients, whose bytes are ``sizes``, appear as what was kept before them is freed."""
    # tables are looked up, not kept; the token table's gradient appears twice, from input and output
    late = sorted(((saved.before.get(name, 0), size) for name, size in sizes.items()), reverse=True)
    gradients, worst = 0, saved.total
    for kept, size in late:
        gradients += size
        worst = max(worst, kept + gradients)
    largest = max(sizes.values(), default=0)
    return max(worst + WORKSPACE * saved.largest, gradients + 2 * largest)


def step_memory(
    model: nn.Module,
    batches: Sequence[Any],
    precision: torch.dtype = torch.float32,
    optimizer: Optimizer = Optimizer(),
    average: torch.dtype | None = None,
    device: str = "cpu",
) -> Memory:
    """Count the memory of a training step on a ``device`` ("cpu", "cuda").

    batches: collated batches, or lists of sub-batches; the largest counts, and what any of them trains is trained.
    average: type of the moving average's weights, None without one.
    """
    shapes = without_content(model)
    every = sum(p.numel() for p in shapes.parameters())
    buffers = sum(b.numel() * b.element_size() for b in shapes.buffers())
    shapes.to(precision).train()
    numbers = {id(p): p.numel() for p in shapes.parameters() if p.requires_grad}
    width = torch.empty((), dtype=precision).element_size()
    reduced = precision != torch.float32
    activations = inputs = step = 0
    trained: set[int] = set()
    for batch in batches:
        groups = [g for g in (batch if isinstance(batch, list) else [batch]) if g.get("nsentences")]
        inputs_of = [as_precision(group["net_input"], precision) for group in groups]
        saved = forward_saves(shapes, inputs_of, device)
        saved.trained &= numbers.keys()
        step = max(step, _worst_moment({name: numbers[name] * width for name in saved.trained}, saved))
        trained |= saved.trained
        activations = max(activations, saved.total)
        inputs = max(inputs, sum(_bytes(group["net_input"]) for group in groups))
    gradients = sum(numbers[name] for name in trained)
    copies = reduced and optimizer.copies
    kept = sum(numbers.values()) if copies else gradients
    float32_gradients = 4 * kept if copies else 0
    masters = 4 * kept if copies or (reduced and optimizer.masters) else 0
    own_copy = width + (4 if average == torch.float32 and reduced else 0)
    return Memory(
        weights=sum(p.nbytes for p in shapes.parameters()) + masters + buffers,
        optimizer=kept * 4 * optimizer.moments,
        average=0 if average is None else every * own_copy,
        gradients=gradients * width + float32_gradients,
        activations=activations,
        inputs=inputs,
        step=step + float32_gradients,
    )


def _bytes(net_input: Mapping[str, Any]) -> int:
    return sum(v.numel() * v.element_size() for v in net_input.values() if isinstance(v, torch.Tensor))


def touch_kernels() -> None:
    """Run one tiny training step, so that the code of the kernels, 160 MB of it on a CPU, is in memory."""
    functional = nn.functional
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(392, 16), nn.LayerNorm(16), nn.GELU(),
    )  # fmt: skip
    states = net(torch.zeros(2, 3, 32, 32))[:, None, None]
    mixed = functional.scaled_dot_product_attention(states, states, states, attn_mask=torch.zeros(1, 1))
    optimizer = torch.optim.Adam(net.parameters())
    functional.cross_entropy(mixed.flatten(1), torch.zeros(2, dtype=torch.long)).backward()
    optimizer.step()
