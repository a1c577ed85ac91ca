"""Sides of a comparison as processes that take turns, measured in user CPU seconds.

What else the machine does falls on all of them alike, and none finds the caches, the allocator or the patches of
another.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

Run = Callable[[], None]
Make = Callable[..., Run]


class Taken(NamedTuple):
    """User seconds (or multiples of a yardstick's), the system's seconds, peak memory in GB."""

    user: float
    system: float
    peak: float


def serve(pipe: Connection, threads: int, make: Make, *arguments: Any) -> None:
    """Make a run and make it once for each word from the other side; answer what it took."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    run = make(*arguments)
    run()  # buffers, kernels and an optimizer's state come into being
    run()  # and find their places
    while True:
        pipe.send(True)
        if not pipe.recv():
            return
        before = resource.getrusage(resource.RUSAGE_SELF)
        run()
        after = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(
            Taken(after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, after.ru_maxrss / 1e6)
        )


class Side:
    """A process that measures one thing: what ``make``, a function of a module, returns for ``arguments``."""

    def __init__(self, threads: int, make: Make, *arguments: Any) -> None:
        self.pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve, args=(other, threads, make, *arguments), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def measure(self) -> Taken:
        """Run once."""
        self.pipe.send(True)
        taken: Taken = self.pipe.recv()
        self.pipe.recv()
        return taken

    def end(self) -> None:
        self.pipe.send(False)
        self.process.join()


def end_of_unit(yardstick: Side, name: str, threads: int) -> None:
    """Print how long the unit takes, and end its side."""
    one = statistics.median(yardstick.measure().user for _ in range(3))
    yardstick.end()
    print(f"\n{name} = {one:.2f} user seconds here, {threads} thread(s)")


def before_and_now(yardstick: Side, threads: int, rounds: int, make: Make, *arguments: Any) -> list[Taken]:
    """Let the yardstick and both manners of a run, its last argument, take turns; return for "before" and "now" the
    medians of the seconds, the user's in units of the yardstick's in the same round, and of the peak memory."""
    sides = [Side(threads, make, *arguments, manner) for manner in ("before", "now")]
    found: list[list[Taken]] = [[] for _ in sides]
    for _ in range(rounds):
        one = yardstick.measure().user
        for side, turns in zip(sides, found, strict=True):
            taken = side.measure()
            turns.append(taken._replace(user=taken.user / one))
    for side in sides:
        side.end()
    return [Taken(*map(statistics.median, zip(*turns, strict=True))) for turns in found]
