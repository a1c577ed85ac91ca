"""One evaluation on several processes: ours on this machine, or those of torchrun and SLURM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import torch.distributed

from unival.core.children import unheard_interrupts
from unival.core.device import device_named
from unival.errors import ConfigError
from unival.launch.company import Company
from unival.launch.preflight import Presence

_PATIENCE, _POLL = 5.0, 0.1  # seconds: of silent waiting for other ranks, between looks
_GROUPS = count()  # groups that this process has joined: each has keys of its own
_companies: list[Company] = []  # of the group that it is in
PARENT = "UNIVAL_EVALUATE_PARENT"  # set for the processes that a first one starts: its process id


def rank_and_size() -> tuple[int, int]:
    """Rank and number of processes under a launcher such as torchrun; (0, 1) without one.

    Raises ConfigError when the launcher's variables are incomplete or make no sense.
    """
    size, rank = _number("WORLD_SIZE"), _number("RANK")
    if size is None or size == 1 or rank is None:
        return 0, 1
    if not 0 <= rank < size:
        raise ConfigError(
            f"RANK={rank} and WORLD_SIZE={size} do not fit: ranks count from 0 to WORLD_SIZE - 1"
        )
    absent = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if absent:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set but {' and '.join(absent)} is not: start with torchrun, use "
            "--processes, or give every process its --shard and --num-shards and merge with a last run without "
            "them; if the variables are left over from another run, unset them"
        )
    return rank, size


def _number(variable: str) -> int | None:
    """A launcher's variable as a number, None when it is absent or empty."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"{variable} is '{text}', expected a whole number; unset it, or start with torchrun"
        ) from None


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:120]


def _place() -> str:
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def _store(rank: int, size: int, seconds: float) -> torch.distributed.Store:
    """Keys shared by all ranks. Rank 0 serves them, unless torchrun's agent does."""
    port = _number("MASTER_PORT")
    assert port is not None
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = torch.distributed.TCPStore(
            os.environ["MASTER_ADDR"],
            port,
            is_master=serves,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except (RuntimeError, ValueError) as error:
        what = "that address cannot be served" if serves else "rank 0 did not come"
        raise ConfigError(
            f"rank {rank} of {size} cannot reach rank 0 at {_place()} within {seconds:g} s ({what}: "
            f"{_first(error)}); if RANK and WORLD_SIZE are left over from another run, unset them"
        ) from None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return torch.distributed.PrefixStore(f"attempt{attempt}", store)


def join(rank: int, size: int, seconds: float) -> None:
    """Meet all ranks at MASTER_ADDR:MASTER_PORT and join their group.

    From then on ranks may wait for the slowest one as long as it takes, and end when one is gone. Raises ConfigError
    that names those that have not come within ``seconds``; long before, it is said who is waited for.
    """
    store = torch.distributed.PrefixStore(f"evaluate{next(_GROUPS)}", _store(rank, size, seconds))
    begun, said = time.monotonic(), False
    try:
        store.set(f"rank{rank}", Presence.here(rank, "", {}).place)
        while absent := [str(k) for k in range(size) if not store.check([f"rank{k}"])]:
            waited = time.monotonic() - begun
            named = f"rank{'s' * (len(absent) > 1)} {', '.join(absent)} of {size}"
            if waited > seconds:
                raise ConfigError(
                    f"{named} did not come to {_place()} within {seconds:g} s (--preflight-timeout): start all of "
                    "them; if RANK and WORLD_SIZE are left over from another run, unset them"
                )
            if not said and waited > min(_PATIENCE, seconds / 2):
                print(f"waiting for {named} at {_place()}", file=sys.stderr, flush=True)
                said = True
            time.sleep(_POLL)
        group = torch.distributed.PrefixStore("group", store)
        torch.distributed.init_process_group(
            "gloo", store=group, rank=rank, world_size=size, timeout=timedelta(days=30)
        )
        company = Company()
        company.join(store, rank, [store.get(f"rank{k}").decode() for k in range(size)] if rank == 0 else ())
        _companies.append(company)
    except RuntimeError as error:
        raise ConfigError(f"rank 0 has ended before all came ({_first(error)}); see its output") from None


def wait() -> None:
    """Return when all ranks have come here. Raises ConfigError when one has ended instead."""
    try:
        torch.distributed.barrier()
    except RuntimeError:
        raise ConfigError(
            "another rank of this evaluation has ended, see its output; start the same command again to go on"
        ) from None


def leave() -> None:
    while _companies:
        _companies.pop().leave()
    torch.distributed.destroy_process_group()


def start(arguments: Mapping[str, Any], count: int, devices: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Start shards 1 to count - 1 with the fields of a request; shard k runs on device k mod n."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    running = []
    for shard in range(1, count):
        with unheard_interrupts():
            process = subprocess.Popen(
                [sys.executable, "-m", "unival.evaluate.runner"],
                stdin=subprocess.PIPE,
                text=True,
                env={**os.environ, PARENT: str(os.getpid()), "OMP_NUM_THREADS": threads},
            )
        assert process.stdin is not None
        own = {"shard": shard, "num_shards": count, "device": devices[shard % len(devices)]}
        json.dump({**arguments, **own}, process.stdin)
        process.stdin.close()
        running.append(process)
    return running


def finish(running: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for the started shards. Raises ConfigError when one failed."""
    failed = [str(shard) for shard, process in enumerate(running, start=1) if process.wait()]
    if failed:
        raise ConfigError(
            f"{len(failed)} of {len(running) + 1} processes failed (shard {', '.join(failed)}, see above); "
            "start the same command again to go on with the rest"
        )


def stop(running: Iterable[subprocess.Popen[str]]) -> None:
    """End the started shards; for the way out after an error."""
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def while_parent_lives(batches: Iterable[Any]) -> Iterator[Any]:
    """Pass batches through; in a started shard stop when the process that started it is gone."""
    parent = int(os.environ.get(PARENT, "0"))
    for batch in batches:
        if parent and os.getppid() != parent:
            raise ConfigError("the process that started this shard is gone")
        yield batch


def devices(wanted: str | None) -> list[str]:
    """Return the devices to spread processes over: the one asked for, or all GPUs, or the CPU.

    Raises ConfigError for one that is not there.
    """
    if wanted:
        return [device_named(wanted)]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{k}" for k in range(count)] or ["cpu"]
