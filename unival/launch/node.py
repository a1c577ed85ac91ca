"""The processes of one node, seen through to their end: ``python -m unival.launch VERB ARGUMENTS...``.

Starts ``python -m unival VERB ARGUMENTS...`` once for each of GPUS processes with the variables that torchrun
sets. Unlike torchrun it ends with the exit code of the process that failed first, passes the signals that ask for a
stop on so that a run can save (when it is killed itself, the system does that), and leaves the roll call of nodes to
``unival.launch.preflight``, which names an absent one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from unival.core.children import PARENT, follow_starter
from unival.errors import ConfigError
from unival.launch.stopping import SIGNALS, STOPPED

_POLL = 0.1  # seconds
_LAST_LINES = 40
_GRACE = 5.0  # seconds for the others to report after one process has failed
_SAVING = 300.0  # seconds for the others after one process has saved and stopped


@dataclass(frozen=True)
class Node:
    """This node's part of a run: ``processes`` on each of ``nodes`` nodes."""

    processes: int
    nodes: int
    number: int
    address: str
    port: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Node:
        """Read GPUS, and on several nodes NNODES, NODE_RANK (or SLURM_NODEID), MASTER_ADDR, MASTER_PORT.

        Raises:
            ConfigError: a variable that is missing, no number or out of range.
        """
        processes, nodes = _number(environ, "GPUS", "1", 1), _number(environ, "NNODES", "1", 1)
        if nodes == 1:
            return cls(processes, 1, 0, "127.0.0.1", _free_port())
        name = "NODE_RANK" if "NODE_RANK" in environ else "SLURM_NODEID"
        for needed in (name, "MASTER_ADDR", "MASTER_PORT"):
            if not environ.get(needed):
                raise ConfigError(
                    f"NNODES is {nodes} but {needed} is not set: give every node NODE_RANK (0 to {nodes - 1}), and "
                    "MASTER_ADDR and MASTER_PORT of node 0"
                )
        number = _number(environ, name, "", 0)
        if number >= nodes:
            raise ConfigError(f"{name} is {number} of {nodes} nodes; nodes count from 0 to {nodes - 1}")
        return cls(processes, nodes, number, environ["MASTER_ADDR"], _number(environ, "MASTER_PORT", "", 1))

    def variables(self, local: int) -> dict[str, str]:
        """Variables of a process, as torchrun names them."""
        values = {
            "RANK": self.number * self.processes + local,
            "LOCAL_RANK": local,
            "WORLD_SIZE": self.nodes * self.processes,
            "LOCAL_WORLD_SIZE": self.processes,
            "MASTER_ADDR": self.address,
            "MASTER_PORT": self.port,
        }
        return {name: str(value) for name, value in values.items()}


class Process:
    """One rank: its standard error goes through, marked with the rank, and its end is kept."""

    def __init__(self, node: Node, local: int, words: Sequence[str]) -> None:
        variables = node.variables(local)
        self.rank = int(variables["RANK"])
        # as torchrun does: the threads of several processes would fight for the cores
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "unival", *words],
            env={**os.environ, **threads, **variables, PARENT: str(os.getpid())},
            stderr=subprocess.PIPE,
        )
        self.last: deque[bytes] = deque(maxlen=_LAST_LINES)
        assert self.popen.stderr is not None
        self._reader = threading.Thread(target=self._forward, args=(self.popen.stderr,), daemon=True)
        self._reader.start()

    def _forward(self, stream: IO[bytes]) -> None:
        mark = f"[rank {self.rank}] ".encode()
        for line in stream:
            self.last.append(line)
            sys.stderr.buffer.write(mark + line)
            sys.stderr.buffer.flush()

    @property
    def code(self) -> int | None:
        """Exit code as a shell gives it, None while the process runs."""
        code = self.popen.poll()
        return code if code is None or code >= 0 else 128 - code

    def report(self) -> str:
        """Say how the process ended, with the last lines it wrote: the traceback."""
        self._reader.join(_GRACE)
        code = self.popen.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = b"".join(self.last).decode("utf-8", "replace")
        return (
            f"unival.launch: rank {self.rank} ({socket.gethostname()}, pid {self.popen.pid}) {how}"
            + (f"; it wrote last:\n{lines}" if lines else "")
        ).rstrip()


def run(node: Node, words: Sequence[str]) -> int:
    """Start the node's processes and wait for them; return the exit code of the first that failed, or 0."""
    processes = [Process(node, local, words) for local in range(node.processes)]

    def forward(number: int, frame: object) -> None:
        for process in processes:
            if process.code is None:
                process.popen.send_signal(number)

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, forward)
    failed: Process | None = None
    while failed is None and any(process.code is None for process in processes):
        time.sleep(_POLL)
        failed = next((process for process in processes if process.code), None)
    if failed is None:
        failed = next((process for process in processes if process.code), None)
    if failed is None:
        return 0
    code = failed.code or 0
    _end(processes, _SAVING if code == STOPPED else _GRACE)
    if code != STOPPED:
        print(failed.report(), file=sys.stderr, flush=True)
    return code


def _end(processes: Sequence[Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.code is None for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL)
    for process in processes:
        if process.code is None:
            process.popen.kill()
        process.popen.wait()


def _number(environ: Mapping[str, str], name: str, default: str, least: int) -> int:
    text = environ.get(name) or default
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{name} is '{text}'; expected a whole number of at least {least}")
    return int(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code of the first failing process, 75 for a run that saved and stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    follow_starter()
    try:
        return run(Node.from_environment(os.environ), words)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
