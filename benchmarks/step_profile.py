"""Where an update of step_units.py spends its time on a CPU, by kind of operation, before and now.

    python benchmarks/step_profile.py [--only caption quickstart] [--precision float32] [--turns 2] [--recompute]

The profiler's self times as shares, and as parts of the processor time of the same update (what else the machine does
falls on the clock alone); one thread, each manner in a process of its own, the least of its turns. "Adam and clip" is
all that follows the backward pass. ``--recompute`` compares, by user time and peak memory, the update as it is with one
that keeps all feature maps (unival/modeling/remaking.py makes those behind norms again) and with one whose layers are
run again in the backward pass (``checkpoint_activations``).
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from typing import Any

from turns import Run, Side

KINDS = {
    "convolution": ("conv",),
    "matrix products": ("mm", "linear", "scaled_dot"),
    "BatchNorm": ("batch_norm",),
    "LayerNorm": ("layer_norm",),
    "activations and pooling": ("threshold", "relu", "clamp", "gelu", "pool"),
    "copies and casts": ("copy_", "cat", "contiguous", "_to_copy", "clone"),
    "loss and softmax": ("softmax", "gather", "nll"),
}
LATER, REST = "Adam and clip", "other"


def kind_of(event: Any) -> str:
    parent = event
    while parent is not None:
        if parent.name == LATER:
            return LATER
        parent = parent.cpu_parent
    return next((kind for kind, words in KINDS.items() if any(word in event.name for word in words)), REST)


def profile(kind: str, precision: str, manner: str, turns: int) -> dict[str, float]:
    """Seconds of an update by kind of operation."""
    import torch
    import updates
    from step_units import step
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as record

    plain = updates.apply_gradients

    def apply_gradients(*arguments: Any) -> None:
        with record_function(LATER):
            plain(*arguments)

    updates.apply_gradients = apply_gradients
    torch.set_num_threads(1)
    run = step(kind, precision, manner)
    run()
    found: list[dict[str, float]] = []
    for _ in range(turns):
        with record(activities=[ProfilerActivity.CPU]) as recorded:
            begun = time.process_time()
            run()
            taken = time.process_time() - begun
        seconds = dict.fromkeys((*KINDS, LATER, REST), 0.0)
        for event in recorded.events():
            seconds[kind_of(event)] += event.self_cpu_time_total / 1e6
        total = sum(seconds.values())
        found.append({name: each * taken / total for name, each in seconds.items()})
    return min(found, key=lambda seconds: sum(seconds.values()))


def recomputing(kind: str, precision: str, manner: str) -> Run:
    """An update as it is, with all maps kept, or with layers run again."""
    import step_units

    from unival.modeling import remaking

    if manner == "maps kept":
        remaking.LEAST = 2**60
    step_units.NETWORKS[kind] = step_units.NETWORKS[kind] | {"checkpoint_activations": manner == "recomputed"}
    return step_units.step(kind, precision)


def recomputed(kind: str, precision: str, turns: int) -> None:
    """Print user seconds of an update and the peak of memory of the three, in turns."""
    manners = ("maps kept", "as it is", "recomputed")
    sides = [Side(1, recomputing, kind, precision, manner) for manner in manners]
    taken = [[side.measure() for side in sides] for _ in range(turns)]
    for side in sides:
        side.end()
    print(f"\n| {kind}, {precision} | {' | '.join(manners)} |\n{'|---' * (len(manners) + 1)}|")
    for name, digits in (("user", 3), ("peak", 2)):
        cells = [f"{min(getattr(one, name) for one in turn):.{digits}f}" for turn in zip(*taken, strict=True)]
        print(f"| {name}, {'s' if name == 'user' else 'GB'} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=["caption", "quickstart"])
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--recompute", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    manners = ("before", "now")
    for kind, precision in itertools.product(args.only, args.precision):
        if args.recompute:
            recomputed(kind, precision, args.turns)
            continue
        found = []
        for manner in manners:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(profile, (kind, precision, manner, args.turns)))
        print(f"\n| {kind}, {precision} | {' | '.join(manners)} |\n|---|---|---|")
        totals = [sum(seconds.values()) for seconds in found]
        for name in found[0]:
            sides = zip(found, totals, strict=True)
            cells = [f"{each[name]:.3f} s, {each[name] / total:.0%}" for each, total in sides]
            print(f"| {name} | {' | '.join(cells)} |")
        print(f"| all | {' | '.join(f'{total:.3f} s' for total in totals)} |", flush=True)


if __name__ == "__main__":
    main()
