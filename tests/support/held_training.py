"""``unival train`` in which every checkpoint waits, complete but without its name, until a test lets it pass.

``UNIVAL_TEST_GATE`` is a folder: what waits puts a file into it and goes on when that is gone. ``UNIVAL_TEST_LIMIT``
instead: no file may be larger than so many bytes, as on a full disk.
"""

from __future__ import annotations

import itertools
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.plugin_runs import Started


def let_pass(run: Started, gate: Path) -> None:
    """Wait until a checkpoint of ``run`` waits, and let it pass."""
    run.until(lambda: any(gate.iterdir()))
    next(gate.iterdir()).unlink()


def main(argv: Sequence[str]) -> int:
    gate, limit = os.environ.get("UNIVAL_TEST_GATE"), os.environ.get("UNIVAL_TEST_LIMIT")
    flush, numbers = os.fsync, itertools.count()

    def held(number: int) -> None:
        if gate and ".part.checkpoint" in os.readlink(f"/proc/self/fd/{number}"):
            mark = Path(gate) / str(next(numbers))
            mark.touch()
            while mark.exists():
                time.sleep(0.01)
        flush(number)

    if gate:
        os.fsync = held  # type: ignore[assignment]
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    from unival.train import main as train

    return train(list(argv))
