"""What a run will take, before it runs: rows, updates, effective batch, memory of a step, time."""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unival.batching.reading import Item
from unival.core.free_memory import free_memory
from unival.data.dataset import Failure
from unival.errors import ConfigError
from unival.modeling.memory import MIB, Memory, Optimizer, step_memory, touch_kernels
from unival.tasks.fitting import Fitted, fit
from unival.tasks.schedule import plan_schedule
from unival.tasks.timing import device_of, time_of_run

SAMPLED = 6  # batches from all over the epoch; the largest decides the memory
SEARCHED = 1000  # batches looked through for rows of a rare source


@dataclass(frozen=True)
class Planned:
    """What a terminal shows, the memory of a step, and the largest batch where it was asked for."""

    text: str
    memory: Memory
    fitted: Fitted | None = None


def plan(cfg: Any, fitting: bool = False, stated: float | None = None) -> Planned:
    """Return the plan that training would print, with the memory of a step and the time.

    fitting: search for the largest batch that fits in ``stated`` gigabytes (1e9 bytes), by default in what is free.

    Raises:
        UnivalError: whatever would stop the run before its first step; or no batch fits.
    """
    from fairseq import tasks

    task = tasks.setup_task(cfg.task)
    per_epoch, total = plan_schedule(cfg, task)
    dataset = task.datasets[task.args.train_subset]
    limit = _limit(cfg, stated) if fitting else 0
    begun = time.perf_counter()
    sampled = _sampled(task.schedule(dataset, cfg.dataset.batch_size, 1), len(dataset.sources))
    batches = []
    for items in sampled:
        batch = dataset.collater([dataset[item] for item in items])
        if isinstance(batch, Failure):
            batch.raise_()
        batches.append(batch)
    reading = (time.perf_counter() - begun) / max(len(batches), 1)
    model = task.build_model(cfg.model)
    touch_kernels()
    before = _resident() - _held(model, batches)
    memory = _memory(cfg, model, [batch for batch in batches if batch])
    precision, optimizer = str(_precision(cfg)).removeprefix("torch."), cfg.optimizer._name
    lines = [
        task.plan(cfg, per_epoch, total),
        f"memory of a step on one device ({precision}, {optimizer}):",
        *memory.lines(),
        f"  {memory.peak / MIB:>9,.0f} MiB  together",
    ]
    program = before if device_of(cfg).type == "cpu" else 0
    if program:
        lines.append(
            f"  {(memory.peak + program) / MIB:>9,.0f} MiB  on this CPU, with the program and its libraries"
        )
    fitted = None
    if fitting:
        taken = [_memory(cfg, model, [batch]).peak if batch else 0 for batch in batches]
        heaviest = [dataset[item] for item in sampled[taken.index(max(taken))]]

        def peak(rows: int) -> int:
            """Bytes of a step of so many rows, all of them from the heaviest batch that was looked at."""
            # copies: examples that share one medium would have it once in the batch
            batch = dataset.collater([copy.deepcopy(heaviest[k % len(heaviest)]) for k in range(rows)])
            step = _memory(cfg, model, [batch])
            return program + replace(memory, inputs=step.inputs, step=step.step).peak

        fitted = fit(peak, limit, cfg.dataset.batch_size, len(dataset))
        lines.append(fitted.line)
    lines.append(time_of_run(cfg, task, model, batches, reading, total, memory.peak))
    if torch.cuda.is_initialized():  # a trial in another process is to find the memory that this one found
        model.cpu()
        torch.cuda.empty_cache()
    return Planned("\n".join(lines), memory, fitted)


def _memory(cfg: Any, model: torch.nn.Module, batches: Sequence[Any]) -> Memory:
    average = None if not cfg.ema.store_ema else torch.float32 if cfg.ema.ema_fp32 else _precision(cfg)
    kind = device_of(cfg).type
    return step_memory(model, batches, _precision(cfg), _optimizer(cfg), average, kind)


def _limit(cfg: Any, stated: float | None) -> int:
    """Bytes that a run may take.

    Raises:
        ConfigError: none are stated, and the system does not say what is free.
    """
    free = int(stated * 1e9) if stated is not None else free_memory(device_of(cfg))
    if free is None:
        raise ConfigError("--fit: this system does not say how much memory is free; give --memory GB")
    return free


def _sampled(schedule: Sequence[list[Item]], sources: int) -> list[list[Item]]:
    """Batches from all over an epoch, and the first with rows of each source that none of them has: what only its rows
    train is trained."""

    def held(position: int) -> set[int]:
        return {source for _, source, _ in schedule[position]}

    chosen = list(range(0, len(schedule), max(1, len(schedule) // SAMPLED))[:SAMPLED])
    missing = set(range(sources)).difference(*map(held, chosen))
    for position in range(min(len(schedule), SEARCHED)):
        if not missing:
            break
        if missing & held(position):
            chosen.append(position)
            missing -= held(position)
    return [schedule[position] for position in chosen]


def _optimizer(cfg: Any) -> Optimizer:
    """What the engine's choice of an optimizer keeps (tasks/optimizer.py, fairseq's trainer)."""
    name, common = cfg.optimizer._name, cfg.common
    moments = {"adam": 2, "adamax": 2, "sgd": 1 if cfg.optimizer.get("momentum") else 0}.get(name, 2)
    lean = common.memory_efficient_fp16 or common.memory_efficient_bf16
    own = common.bf16 and name == "adam" and not cfg.optimizer.get("use_old_adam")
    return Optimizer(moments, masters=not lean, copies=not lean and not own)


def _precision(cfg: Any) -> torch.dtype:
    return torch.bfloat16 if cfg.common.bf16 else torch.float16 if cfg.common.fp16 else torch.float32


def _resident() -> int:
    """Bytes of this process that are in memory: interpreter, libraries, and what it holds."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _held(model: torch.nn.Module, batches: list[Any]) -> int:
    """Bytes of the weights and batches that were made for the plan."""
    groups = [g for batch in batches for g in (batch if isinstance(batch, list) else [batch]) if g]
    inputs = [v for g in groups for v in g.get("net_input", {}).values() if isinstance(v, torch.Tensor)]
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers(), *inputs)}
    return sum(tensors.values())
