"""Length of a run and of its learning-rate schedule, from epochs and a warm-up share."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import open_dict

from unival.data.iterator import Division
from unival.errors import ConfigError


def plan_schedule(cfg: Any, task: Any, division: Division | None = None) -> tuple[int, int]:
    """Fill in the length of the learning-rate schedule and its warm-up.

    fairseq's polynomial decay wants ``total_num_update``; recipes give epochs and ``--warmup-ratio``
    (reference behaviour: total = updates per epoch * max_epoch, warm-up = ratio * total).

    ``division``: what an update holds, where that is not what the options say (a run that goes on).

    Returns:
        updates per epoch, total updates (0 when the run is unbounded).

    Raises:
        ConfigError: a decaying schedule without an end, a warm-up given twice or out of range.
    """
    division = division or Division.of(cfg)
    batches = task.batches_per_epoch(cfg.dataset.batch_size, epoch=1)
    per_epoch = math.ceil(batches / division.batches(1))
    total = int(cfg.optimization.max_update or 0)
    if not total and cfg.optimization.max_epoch:
        epochs = range(1, cfg.optimization.max_epoch + 1)
        total = sum(math.ceil(batches / division.batches(epoch)) for epoch in epochs)
    scheduler, ratio = cfg.lr_scheduler, task.cfg.warmup_ratio
    with open_dict(scheduler):
        length = total
        if "total_num_update" in scheduler:
            if not scheduler.total_num_update:
                if not total:
                    raise ConfigError(
                        "a decaying learning rate needs --max-epoch, --max-update or --total-num-update"
                    )
                scheduler.total_num_update = total
            length = int(scheduler.total_num_update)
        if ratio is not None:
            if not 0.0 <= ratio < 1.0:
                raise ConfigError(f"--warmup-ratio {ratio} is not in [0, 1)")
            if scheduler.get("warmup_updates"):
                raise ConfigError("give --warmup-ratio or --warmup-updates, not both")
            if "warmup_updates" not in scheduler:
                raise ConfigError(f"--warmup-ratio has no meaning for --lr-scheduler {scheduler._name}")
            if not length:
                raise ConfigError("--warmup-ratio needs --max-epoch or --max-update")
            scheduler.warmup_updates = int(ratio * length)
    return per_epoch, total
