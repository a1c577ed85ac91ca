"""The program in real processes that start at once: a server imports everything, then forks one process per call.

One server for all test processes of a session. It ends when the last of them has gone, and what it started with it.
A call comes over a socket: a line of JSON ({"module", "argv", "env", "cwd", "session"}) and three descriptors. The
answers are a line {"pid"} and, later, a line {"code"} as ``subprocess`` counts it. What a forked process runs is what
``python -m unival`` or ``python -m unival.train`` runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLIENT = Path(__file__).with_name("fork_client.py")


def address() -> str:
    """Name of the server of this session of tests (an abstract socket: no file is left)."""
    return f"unival-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or os.getpid()}"


class Forks:
    """Client of the server; starts it when nobody has."""

    def __init__(self) -> None:
        self.address = address()
        self.lease = self._connect(b"\n")  # held for as long as this process lives
        assert self.lease.makefile().readline() == "ready\n"

    @property
    def program(self) -> list[str]:
        """Words that take the place of ``[sys.executable, "-m", "unival"]``."""
        return [sys.executable, "-I", "-S", str(CLIENT), self.address]

    def start(
        self,
        argv: list[str],
        files: tuple[int, int, int],
        env: dict[str, str],
        cwd: Path,
        module: str = "unival.cli",
    ) -> Process:
        job = {"module": module, "argv": argv, "env": env, "cwd": str(cwd)}
        return Process(self._connect(json.dumps(job).encode() + b"\n", files))

    def _connect(self, line: bytes, files: tuple[int, ...] = ()) -> socket.socket:
        for attempt in range(600):
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(f"\0{self.address}")
                socket.send_fds(connection, [line[:1]], files)
                connection.sendall(line[1:])
                return connection
            except ConnectionError:
                connection.close()
            if attempt % 100 == 0:
                self._serve()
            time.sleep(0.1)
        raise AssertionError("the server of forks does not start")

    def _serve(self) -> None:
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "TOKENIZERS_PARALLELISM": "false",
        }
        env["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking for a GPU must not start CUDA before the forks
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        subprocess.Popen(
            [sys.executable, __file__, self.address], env=env, cwd=ROOT, start_new_session=True, **quiet
        )


@cache
def forks() -> Forks:
    """This process's client."""
    return Forks()


class Process:
    """A forked process, leader of a process group of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._answers = connection.makefile()
        self._connection = connection
        self.pid: int = json.loads(self._answers.readline())["pid"]
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.code

    def wait(self) -> int:
        if self.code is None:
            self.code = int(json.loads(self._answers.readline())["code"])
            self._connection.close()
        return self.code


def _child(job: dict[str, Any], files: list[int]) -> None:
    """What a forked process does."""
    os.setpgid(0, 0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # the old objects know of the server's files whether they can seek
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    code = 70
    try:
        import importlib

        sys.argv = [job["module"], *job["argv"]]
        code = importlib.import_module(job["module"]).main(job["argv"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _import_everything() -> None:
    import torch

    torch.set_num_threads(1)  # no thread pool that a fork would leave behind
    import logging

    import av  # noqa: F401
    import librosa  # noqa: F401
    import soundfile  # noqa: F401
    import timm  # noqa: F401

    with contextlib.suppress(ImportError):
        import open_clip  # noqa: F401
    with contextlib.suppress(ImportError):
        from unival.data.engine_start import convert_namespace_to_omegaconf
        from unival.train import parse

        # the first command line is read four times as slowly as the next
        convert_namespace_to_omegaconf(parse(["-", "--task=caption", "--arch=unival_tiny"]))
    logging.getLogger().handlers.clear()  # some library made one


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A line and the descriptors that came with its first byte."""
    line, files, _, _ = socket.recv_fds(connection, 1, 3)
    while line and not line.endswith(b"\n"):
        line += connection.recv(65536)
    return line, files


def serve(name: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"\0{name}")
    except OSError:
        return  # another test process was first
    listener.listen(64)
    _import_everything()
    leases: set[socket.socket] = set()
    running: dict[int, tuple[socket.socket, int]] = {}  # pidfd: (who waits, pid)
    pause: float | None = 60.0
    while True:
        waiting = {connection: pidfd for pidfd, (connection, _) in running.items()}
        ready = select.select([listener, *leases, *running, *waiting], [], [], pause)[0]
        for one in ready:
            if one is listener:
                connection, _ = listener.accept()
                line, files = _receive(connection)
                if line == b"\n":
                    leases.add(connection)
                    connection.sendall(b"ready\n")
                elif line:
                    pid = os.fork()
                    if pid == 0:
                        for held in (listener, connection, *leases, *waiting):
                            held.close()
                        _child(json.loads(line), files)
                    with contextlib.suppress(OSError):
                        os.setpgid(pid, pid)
                    for file in files:
                        os.close(file)
                    running[os.pidfd_open(pid)] = connection, pid
                    connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
            elif one in leases:
                leases.remove(one)
            elif one in running:
                connection, pid = running.pop(one)
                os.close(one)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError):
                    connection.sendall(json.dumps({"code": code}).encode() + b"\n")
                connection.close()
            elif (pidfd := waiting[one]) in running:  # whoever waited has gone
                with contextlib.suppress(OSError):
                    os.killpg(running[pidfd][1], signal.SIGKILL)
                one.recv(1)
        if not leases:
            break
        pause = None
    for _, pid in running.values():
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1])
