"""How long a run will take on this machine: one update and the prediction of a few rows, tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from unival.batching.batch import to_device
from unival.core.free_memory import free_memory
from unival.core.sampling import evenly
from unival.data.dataset import Failure
from unival.errors import UnivalError
from unival.modeling.memory import MIB
from unival.tasks.progress import FIRST_ROWS, duration
from unival.tasks.safety import run_forward

_PATIENCE = 20.0  # seconds for an update; a longer one is reckoned from a single row, which is more per row
_ROOM = 0.8  # of the memory that is free


def time_of_run(
    cfg: Any,
    task: Any,
    model: torch.nn.Module,
    batches: list[Any],
    reading: float,
    total: int,
    needed: int,
) -> str:
    """Return the plan's line on time; what is tried changes ``model``.

    batches: sampled batches of an update's step, the first of which is tried; reading: seconds to read one;
    total: updates of the run; needed: bytes of memory that a step takes.
    """
    device = device_of(cfg)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    if not total:
        return "time: the run has no end set (--max-epoch, --max-update)"
    free = free_memory(device)
    if free is not None and needed > _ROOM * free:
        return f"time: not tried, a step needs {needed / MIB:,.0f} MiB and {free / MIB:,.0f} MiB are free on {name}"
    try:
        model.to(device)
        update = _update(cfg, task, model, next(b for b in batches if b), device)
        validations, seconds = _validations(cfg, task, model, total, device)
    except (
        RuntimeError,
        UnivalError,
    ) as error:  # out of memory after all, an operation that the device lacks
        return (
            f"time: not known, a step failed when it was tried on {name} ({str(error).splitlines()[0][:120]})"
        )
    accumulated = cfg.optimization.update_freq[0]
    workers = cfg.dataset.num_workers
    step = max(update, reading / workers) if workers else update + reading
    whole = total * step * accumulated + validations * seconds
    return (
        f"time: {duration(whole)} on {name}: {total:,} updates of {step * accumulated:.2g} s, {validations:,} "
        f"validations of {seconds:.2g} s (by a model that has learnt nothing and stops late)"
    )


def _update(cfg: Any, task: Any, model: torch.nn.Module, batch: Any, device: torch.device) -> float:
    """Seconds of forward, backward and optimizer step on one batch; the weights are not needed afterwards."""
    criterion = task.build_criterion(cfg.criterion)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.0)
    dtype = "bfloat16" if cfg.common.bf16 else "float16" if cfg.common.fp16 else "float32"
    if dtype != "float32":
        model.to(getattr(torch, dtype))
    model.train()

    def step(sample: Any) -> float:
        parts = [
            to_device(part, str(device), dtype) for part in (sample if isinstance(sample, list) else [sample])
        ]

        def run() -> None:
            loss, size, _ = run_forward(criterion, model, parts if isinstance(sample, list) else parts[0], 1)
            (loss.float() / max(float(size), 1.0)).backward()
            optimizer.step()
            optimizer.zero_grad()

        return _seconds(run, device)

    dataset = task.datasets[task.args.train_subset]
    [item, *_] = task.schedule(dataset, cfg.dataset.batch_size, 1)[0]
    row = dataset.collater([dataset[item]])
    if row and not isinstance(row, Failure):
        step(row)  # the first one prepares kernels
        alone = step(row) * cfg.dataset.batch_size
        if alone > _PATIENCE:
            return alone
    step(batch)
    return min(step(batch) for _ in range(2))


def _validations(
    cfg: Any, task: Any, model: torch.nn.Module, total: int, device: torch.device
) -> tuple[int, float]:
    """Return how many validations a run has, and the seconds of one."""
    dataset = cfg.dataset
    if dataset.disable_validation:
        return 0, 0.0
    task.load_dataset(dataset.valid_subset)
    rows = task.datasets[dataset.valid_subset]
    per_epoch = task.batches_per_epoch(dataset.batch_size)
    if dataset.validate_interval_updates and dataset.validate_interval_updates <= total:
        count = total // dataset.validate_interval_updates
    else:
        count = max(1, total // max(per_epoch * dataset.validate_interval, 1))
    validation = task.validation
    if validation is None or not validation.sources or not len(rows):
        return count, 0.0
    sample = rows.collater(
        [rows[item] for item in evenly(task.schedule(rows, 1, 1), FIRST_ROWS) for item in item]
    )
    if isinstance(sample, Failure):
        sample.raise_()
    parts = sample if isinstance(sample, list) else [sample]
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    model.eval()

    def predict() -> None:
        for part in parts:
            validation.predict(model, to_device(part, str(device), dtype))

    with torch.no_grad():
        seconds = _seconds(predict, device)
    return count, seconds * len(rows) / sum(part["nsentences"] for part in parts)


def _seconds(what: Callable[[], None], device: torch.device) -> float:
    begun = time.perf_counter()
    what()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def device_of(cfg: Any) -> torch.device:
    """Where the run computes."""
    return torch.device("cuda" if torch.cuda.is_available() and not cfg.common.cpu else "cpu")
