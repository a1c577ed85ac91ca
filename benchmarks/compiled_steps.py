"""Updates of the quickstart's model as written and compiled (--compile), by turns in one process.

    python benchmarks/compiled_steps.py [--precision float32 bfloat16] [--rounds 5] [--updates 5]

The update is that of benchmarks/step_units.py: 24 pictures of 64 pixels, 8 source and 16 target tokens, one thread.
Figures are updates per second of processor time, the best round of each manner; compiling is wall-clock time of the
first update and processor time of it and the compilers that it starts.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

from step_units import step


def rate(run: Callable[[], None], updates: int) -> float:
    """Updates per second of processor time."""
    began = time.process_time()
    for _ in range(updates):
        run()
    return updates / (time.process_time() - began)


def spent() -> float:
    """Seconds of processor time of this process and of the compilers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=5)
    args = parser.parse_args()
    import torch

    from unival.modeling.regions import REGIONS
    from unival.tasks.compiling import set_compiled

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    head = ("precision", "as written", "compiled", "times", "compiling, s", "of processor time, s")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for precision in args.precision:
        run = step("quickstart", precision)
        run()  # buffers and kernels come into being
        if not set_compiled(True, torch.device("cpu")):
            return 1
        began, before = time.monotonic(), spent()
        run()
        run()
        wall, processor = time.monotonic() - began, spent() - before
        manners = {
            "as written": [None] * len(REGIONS),
            "compiled": [region.compiled for region in REGIONS],
        }
        best = dict.fromkeys(manners, 0.0)
        for _ in range(args.rounds):
            for manner, functions in manners.items():
                for region, function in zip(REGIONS, functions, strict=True):
                    region.compiled = function
                best[manner] = max(best[manner], rate(run, args.updates))
        written, compiled = best.values()
        rates = f"{written:.2f} | {compiled:.2f} | {compiled / written:.2f}"
        print(f"| {precision} | {rates} | {wall:.0f} | {processor:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
