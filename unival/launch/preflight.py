"""Before a run on several processes: who is there, and do all have the same code, options and data?

Nothing here belongs to the training engine. The roll is called through a store of keys at the rendezvous
address, before any process group exists: a group would wait for an absent rank without naming it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from unival.errors import ConfigError
from unival.launch.company import Company

_PARTS = ("unival", "unival.models", "unival.tasks", "unival.criterions", "unival.data")
# Options that say which rank this is.
_OWN = ("distributed_rank", "device_id", "distributed_port", "distributed_init_method")
PREFLIGHT = 600.0  # seconds that processes wait for each other, where no option says so
_POLL = 0.1  # seconds
_SILENT = 5.0  # seconds before a process says for whom it waits
_FAREWELL = 10.0  # seconds that rank 0 keeps the store open for ranks that have not read its verdict
_SHOWN = 5  # differences that a message lists

Facts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Presence:
    """One rank: where it runs, and facts (kind -> name -> value) that must be equal on all."""

    rank: int
    host: str
    pid: int
    device: str
    facts: Facts = field(default_factory=dict)

    @classmethod
    def here(cls, rank: int, device: str, facts: Facts) -> Presence:
        """Describe this process."""
        return cls(rank, socket.gethostname(), os.getpid(), device, facts)

    @property
    def place(self) -> str:
        return f"rank {self.rank} ({self.host}, pid {self.pid})"


def code_facts() -> dict[str, str]:
    """Hash of the project's own modules, and the versions of the libraries below them."""
    from unival.core.provenance import sha256, versions

    files: list[Path] = []
    for name in _PARTS:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.submodule_search_locations is not None
        for folder in spec.submodule_search_locations:
            files += sorted(Path(folder).rglob("*.py"))
    return {"modules": sha256(files)[:12], **versions()}


def option_facts(options: Mapping[str, Any]) -> dict[str, str]:
    """All options of a run but those that number its processes."""
    return {name: str(value) for name, value in options.items() if name not in _OWN}


def differences(ranks: Sequence[Presence]) -> list[str]:
    """Say for every rank in what it differs from the first; empty when all are equal."""
    first, found = ranks[0], []
    for other in ranks[1:]:
        for kind, facts in first.facts.items():
            theirs = other.facts.get(kind, {})
            names = [n for n in dict.fromkeys([*facts, *theirs]) if facts.get(n) != theirs.get(n)]
            if names:
                shown = [f"{n} is '{theirs.get(n)}', not '{facts.get(n)}'" for n in names[:_SHOWN]]
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                found.append(f"{other.place} differs from rank 0 in {kind}: {'; '.join(shown)}{more}")
    return found


def table(ranks: Sequence[Presence]) -> str:
    """Ranks as lines of text: rank, host, pid, device."""
    width = max(4, *(len(rank.host) for rank in ranks))
    lines = [f"  {'rank':>4} {'host':{width}} {'pid':>8}  device"]
    lines += [f"  {r.rank:>4} {r.host:{width}} {r.pid:>8}  {r.device}" for r in ranks]
    return "\n".join(lines)


def roll_call(own: Presence, world: int, seconds: float, company: Company | None = None) -> list[Presence]:
    """Meet all ranks at MASTER_ADDR:MASTER_PORT; return them in order (on rank 0; elsewhere an empty list).

    From then on ``company`` hears when one of them is gone.

    Raises:
        ConfigError: on every rank that came: some did not within ``seconds`` (named), or they differ in
            code or options (rank and difference named).
    """
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    with _saying(f"rank {own.rank} of {world} waits for rank 0 at {place}, up to {seconds:g} s"):
        store = _store(own.rank, seconds)
    store.set(f"rank{own.rank}", json.dumps(asdict(own)))
    if own.rank != 0:
        try:
            store.wait(["verdict"], timedelta(seconds=seconds + _FAREWELL))
            verdict = json.loads(store.get("verdict"))
            store.add("heard", 1)
        except RuntimeError as error:
            raise ConfigError(
                f"pre-flight: rank 0 gave no answer to rank {own.rank} within {seconds:g} s "
                f"({str(error).splitlines()[0]}); look at its output"
            ) from None
        if verdict:
            raise ConfigError(verdict)
        if company is not None:
            company.join(store, own.rank)
        return []
    ranks = _present(store, world, seconds, place)
    problem = _verdict(ranks, world, seconds)
    store.set("verdict", json.dumps(problem))
    deadline = time.monotonic() + _FAREWELL
    while store.add("heard", 0) < len(ranks) - 1 and time.monotonic() < deadline:
        time.sleep(_POLL)
    if problem:
        raise ConfigError(problem)
    if company is not None:
        company.join(store, own.rank, [rank.place for rank in ranks])
    return ranks


def _verdict(ranks: Sequence[Presence], world: int, seconds: float) -> str:
    came = {rank.rank for rank in ranks}
    absent = [str(rank) for rank in range(world) if rank not in came]
    if absent:
        return (
            f"pre-flight: rank(s) {', '.join(absent)} of {world} did not come within {seconds:g} s; look at the "
            f"output of their nodes, or raise --preflight-timeout. Present:\n{table(ranks)}"
        )
    found = differences(ranks)
    return "pre-flight: " + ". ".join(found) + ". Give all ranks the same." if found else ""


@contextmanager
def _saying(text: str) -> Iterator[None]:
    """Print the text when the block takes longer than a few seconds."""
    timer = threading.Timer(_SILENT, lambda: print(f"pre-flight: {text}", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _present(store: Any, world: int, seconds: float, place: str) -> list[Presence]:
    deadline, missing = time.monotonic() + seconds, set(range(world))
    said = time.monotonic() + _SILENT
    while missing:
        missing -= {rank for rank in missing if store.check([f"rank{rank}"])}
        if missing and time.monotonic() > deadline:
            break
        if missing and said and time.monotonic() > said:
            absent = ", ".join(map(str, sorted(missing)))
            text = f"pre-flight: waiting for rank(s) {absent} of {world} at {place}, up to {seconds:g} s"
            print(text, file=sys.stderr, flush=True)
            said = 0.0
        if missing:
            time.sleep(_POLL)
    found = sorted(set(range(world)) - missing)
    return [Presence(**json.loads(store.get(f"rank{rank}"))) for rank in found]


def _store(rank: int, seconds: float) -> Any:
    """Keys shared by all ranks. Rank 0 serves them, unless torchrun's agent does."""
    from torch.distributed import PrefixStore, TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise ConfigError(
            f"pre-flight: MASTER_ADDR '{host}' is no host that {socket.gethostname()} knows ({error.strerror}): give "
            "the name or the address of the machine of rank 0"
        ) from None
    try:
        # multi_tenant: the process group to come shares the port in this process
        store = TCPStore(
            host,
            port,
            is_master=rank == 0 and not agent,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        what = "its port is taken" if rank == 0 else "rank 0 did not come"
        raise ConfigError(
            f"pre-flight: rank {rank} cannot reach rank 0 at MASTER_ADDR:MASTER_PORT {host}:{port} within "
            f"{seconds:g} s ({what}: {str(error).splitlines()[0]})"
        ) from None
    return PrefixStore(f"preflight{attempt}", store)
