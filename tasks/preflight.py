"""The engine's half of the pre-flight check: equal data on all ranks, and an all-reduce with a time limit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from unival.data.dataset import DataSource
from unival.errors import UnivalError
from unival.launch.preflight import Presence, differences

_REDUCE = 60.0  # seconds; one number takes milliseconds
_POLL = 0.01


def data_facts(sources: Sequence[DataSource], files: Sequence[Path] = ()) -> dict[str, str]:
    """What tells one rank's data from another's: path and size of tables and other files, rows that are read."""
    tables = {s.name: f"{_sized(*map(Path, s.table.files))}, {len(s.table)} rows" for s in sources}
    return tables | {file.name: _sized(file) for file in files}


def _sized(*files: Path) -> str:
    absent = [file for file in files if not file.exists()]
    if absent:
        return f"{absent[0]}: absent"
    several = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{several}: {sum(file.stat().st_size for file in files)} bytes"


def check_together(facts: Mapping[str, str], device: Any, seconds: float, limit: float = _REDUCE) -> None:
    """Compare ``data_facts`` of the ranks and add up one number over all of them; every rank must call it.

    Raises:
        UnivalError: a rank did not come within ``seconds``, holds other data (both named), or the sum did
            not arrive within ``limit`` seconds.
    """
    gloo: Any = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    _meet(gloo, seconds)
    own = Presence.here(dist.get_rank(), str(device), {"data": facts})
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, own, group=gloo)
    found = differences(ranks)
    if found:
        raise UnivalError("pre-flight: " + ". ".join(found) + ". Give all ranks the same files.")
    number = torch.ones((), device=device)
    work = dist.all_reduce(number, async_op=True)
    deadline = time.monotonic() + limit
    while not work.is_completed():
        if time.monotonic() > deadline:
            _meet(gloo, _REDUCE)  # names the ranks that hang elsewhere
            raise UnivalError(
                f"pre-flight: all ranks came, but their all-reduce on {device} took more than {limit:g} s: look at "
                "the network between the devices (NCCL_DEBUG=INFO, NCCL_SOCKET_IFNAME)"
            )
        time.sleep(_POLL)
    if int(number) != len(ranks):
        raise UnivalError(f"pre-flight: an all-reduce of {len(ranks)} ones gave {float(number)}")


def _meet(gloo: Any, seconds: float) -> None:
    try:
        dist.monitored_barrier(gloo, timedelta(seconds=seconds), wait_all_ranks=True)
    except RuntimeError as error:
        raise UnivalError(
            f"pre-flight: not all ranks came within {seconds:g} s: {str(error).strip().splitlines()[0]}"
        ) from None
