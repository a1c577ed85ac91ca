"""Cases of a cluster, tried one after the other: each returns what it saw, or raises Wrong."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 600.0  # seconds for a start or a step, on busy machines
# of every training: nothing is validated, and nothing saved but at a stop
OPTIONS = (
    "--disable-validation",
    "--num-workers=0",
    "--no-epoch-checkpoints",
    "--save-interval=1000000",
    "--save-interval-updates=1000000",
)
Case = Callable[[Path, Path], str]


class Wrong(Exception):
    """What is not as it should be."""


def parse(about: str | None, cases: Sequence[Case], argv: Sequence[str] | None) -> Sequence[Case]:
    """Return the cases that a command line asks for."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[case.__name__ for case in cases])
    only = parser.parse_args(argv).only
    return [case for case in cases if only in (None, case.__name__)]


def run(cases: Sequence[Case], clear: Callable[[], object] = lambda: None) -> int:
    """Render a small world, try each case in a folder name of its own, print a line each; 1 when one is wrong.

    ``clear`` is called after one that is.
    """
    from unival.datatools.world import render

    wrong = 0
    with tempfile.TemporaryDirectory(prefix="unival-try-") as scratch:
        world = Path(scratch) / "world"
        render(world, seed=1, images=60, clips=8, sounds=8, image_size=32, video_size=32, vocabulary_size=400)
        for case in cases:
            begun = time.monotonic()
            try:
                outcome = case(world, Path(scratch) / case.__name__)
            except Wrong as error:
                outcome, wrong = f"WRONG: {error}", wrong + 1
                clear()
            print(f"{case.__name__:16} {outcome} ({time.monotonic() - begun:.0f} s)", flush=True)
    return int(wrong > 0)
