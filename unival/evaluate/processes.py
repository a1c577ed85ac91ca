"""One evaluation on several processes: ours on this machine, or those of torchrun and SLURM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed

from unival.core.device import device_named
from unival.errors import ConfigError

PARENT = "UNIVAL_EVALUATE_PARENT"  # set for the processes that a first one starts: its process id
_SHARE = "import json, sys; from unival.cli.evaluate import share; sys.exit(share(json.load(sys.stdin)))"


def rank_and_size() -> tuple[int, int]:
    """Rank and number of processes under a launcher such as torchrun; (0, 1) without one.

    Raises ConfigError when the launcher's variables are incomplete.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return 0, 1
    if "MASTER_ADDR" not in os.environ:
        raise ConfigError(
            "RANK and WORLD_SIZE are set but MASTER_ADDR is not: start with torchrun, use --processes, or "
            "give every process its --shard and --num-shards and merge with a last run without them"
        )
    return int(os.environ["RANK"]), size


def join() -> None:
    """Join the launcher's group. Ranks may wait for the slowest one as long as it takes."""
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))


def wait() -> None:
    """Return when all ranks have come here."""
    torch.distributed.barrier()


def leave() -> None:
    torch.distributed.destroy_process_group()


def start(arguments: Mapping[str, Any], count: int, devices: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Start shards 1 to count - 1 with the verb's arguments; shard k runs on device k mod n."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    running = []
    for shard in range(1, count):
        process = subprocess.Popen(
            [sys.executable, "-c", _SHARE],
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
        if process.poll() is None:
            process.terminate()
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
