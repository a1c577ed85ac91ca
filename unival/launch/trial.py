"""A run of a few updates in a process of its own, and the most memory that it took."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import sys
from unival.launch.trial import peak
from unival.train import main
code = main(sys.argv[2:])
open(sys.argv[1], "w").write(str(peak()))
sys.exit(code)
"""
# Nothing of it is kept, and nothing else than updates is done; the third one follows a whole epoch of one batch.
_ALONE = (
    "--max-update=3",
    "--update-freq=1",
    "--num-workers=0",
    "--no-save",
    "--first-look=0",
    "--validate-after-updates=1000000",
    "--tensorboard-logdir=",
    "--wandb-project=",
)


@dataclass(frozen=True)
class Trial:
    """How a trial ended: whether it made its updates; if not, whether for want of memory; the most bytes that it took
    (None: it was ended before it could say); and what it said last."""

    done: bool
    out_of_memory: bool
    peak: int | None
    said: str


def try_run(arguments: Sequence[str], rows: int) -> Trial:
    """Train three updates of ``rows`` rows with the engine's options ``arguments``."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "peak"
        words = [*arguments, f"--batch-size={rows}", f"--save-dir={folder}/run", *_ALONE]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(note), *words], capture_output=True, text=True
        )
        taken = int(note.read_text()) if note.is_file() else None
    code, lines = done.returncode, [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    said = f"ended by signal {-code}" if code < 0 or not lines else lines[-1].removeprefix("error: ")
    killed = code == -signal.SIGKILL  # what a system does that has no memory left
    return Trial(code == 0, code != 0 and (killed or "out of memory" in said), taken, said)


def peak() -> int:
    """Bytes that this process has taken at most: of the GPU where it uses one, else of memory."""
    import torch

    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    status = Path("/proc/self/status")  # getrusage goes on from what the starter of this process took
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
