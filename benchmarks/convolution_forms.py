"""Convolutions of the released networks in torch's form and in ours (``unival/modeling/convolutions.py``).

    python benchmarks/convolution_forms.py [--precision float32 bfloat16] [--rounds 7] [--threads 1]

Milliseconds of the processor for a forward and backward pass, least of the rounds, both forms in turns on the same
numbers, maps in the order in which the networks have them in that precision. Last columns: how far apart values and
gradients of the weights lie, as shares of the largest. ``ONEDNN_MAX_CPU_ISA=AVX2`` in front shows kernels of lesser
processors.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from unival.modeling.convolutions import AMX, GroupedConv3d, NarrowConv2d, StridedConv2d

ORDERS = {2: torch.channels_last, 3: torch.channels_last_3d}

SKIP = (StridedConv2d, {"kernel_size": 1, "stride": 2})
NARROW = (NarrowConv2d, {"kernel_size": 3, "padding": 1})
GROUPS = (GroupedConv3d, {"kernel_size": 3, "padding": 1, "groups": 32})
# name, (class, arguments), channels in and out, batch and size of the maps
FORMS: tuple[tuple[str, tuple[type[nn.Module], dict[str, int]], int, int, tuple[int, ...]], ...] = (
    ("ResNet, shortcut 2", SKIP, 256, 512, (2, 96, 96)),
    ("ResNet, shortcut 3", SKIP, 512, 1024, (2, 48, 48)),
    ("ResNet, shortcut 4", SKIP, 1024, 2048, (2, 24, 24)),
    ("sounds, block 5", NARROW, 1024, 1024, (2, 150, 4)),
    ("sounds, block 6, first", NARROW, 1024, 2048, (2, 75, 2)),
    ("sounds, block 6", NARROW, 2048, 2048, (2, 75, 2)),
    ("videos, stage 1", GROUPS, 128, 128, (1, 4, 56, 56)),
    ("videos, stage 2", GROUPS, 256, 256, (1, 2, 28, 28)),
    ("videos, stage 3", GROUPS, 512, 512, (1, 1, 14, 14)),
    ("videos, stage 4", GROUPS, 1024, 1024, (1, 1, 7, 7)),
)


def passes(layer: nn.Module, x: Tensor, gradient: Tensor) -> tuple[float, Tensor, Tensor]:
    """Milliseconds, values and gradient of the weights."""
    layer.weight.grad = x.grad = None
    start = time.process_time()
    y = layer(x)
    y.backward(gradient)
    return (time.process_time() - start) * 1e3, y.detach(), layer.weight.grad


def apart(one: Tensor, other: Tensor) -> float:
    return ((one.float() - other.float()).abs().max() / one.float().abs().max()).item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        "| convolution | precision | torch's | ours | times | values apart | gradients |\n" + "|---" * 7 + "|"
    )
    for name, (form, arguments), channels, out, (batch, *size) in FORMS:
        for precision in args.precision:
            dtype = getattr(torch, precision)
            torch.manual_seed(0)
            ours = form(channels, out, bias=False, **arguments).to(dtype)
            theirs = form.__bases__[0](channels, out, bias=False, **arguments).to(dtype)
            theirs.load_state_dict(ours.state_dict())
            x = torch.randn(batch, channels, *size).to(dtype)
            if dtype == torch.bfloat16 and (len(size) == 2 or AMX):
                x = x.contiguous(memory_format=ORDERS[len(size)])
            x.requires_grad_()
            gradient = torch.randn_like(ours(x))
            found = [
                [passes(layer, x, gradient) for layer in (theirs, ours)] for _ in range(args.rounds + 1)
            ][1:]
            before, now = (min(turn[side][0] for turn in found) for side in (0, 1))
            (_, value, grad), (_, own_value, own_grad) = found[-1]
            far = f"{apart(value, own_value):.1e} | {apart(grad, own_grad):.1e}"
            print(
                f"| {name} | {precision} | {before:.1f} | {now:.1f} | {before / now:.2f} | {far} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
