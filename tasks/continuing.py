"""A run that goes on, maybe on another number of processes: which rows belong to an update then."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import open_dict

from unival.core.torchfile import read_fairseq
from unival.data.iterator import Division
from unival.tasks.files import LAST

logger = logging.getLogger(__name__)


def divide(cfg: Any, task: Any) -> Division:
    """Decide what an update holds, and set how many batches each process accumulates for it.

    A run that goes on under an unchanged command keeps its updates on any number of processes. Where an option
    changes them, the log says what that means.
    """
    asked, saved = Division.of(cfg), _saved(cfg)
    division = asked.going_on(saved)
    world = asked.world
    epochs = range(1, len(division.accumulate) + 1)
    with open_dict(cfg.optimization):
        cfg.optimization.update_freq = [division.steps(epoch, world) for epoch in epochs]
    task.division = division
    if saved is None:
        return division
    if division.update(1) != saved.update(1):
        ratio = division.update(1) / saved.update(1)
        logger.warning(
            f"an update has {division.update(1)} rows now, it had {saved.update(1)} (processes x --batch-size x "
            "--update-freq). Learning rate and --max-update count updates and stay as given, so that the updates "
            f"that are left read {ratio:g} times the rows; the epoch goes on with its next unread row"
        )
    elif list(cfg.optimization.update_freq) != list(asked.accumulate):
        steps = cfg.optimization.update_freq[0]
        logger.info(
            f"this run began on {saved.world} process(es) and goes on on {world}: each accumulates {steps} batch(es), "
            f"an update keeps its {division.update(1)} rows"
        )
    return division


def _saved(cfg: Any) -> Division | None:
    """The division in the checkpoint that this run goes on from, if there is one."""
    options = cfg.checkpoint
    if options.reset_dataloader:
        return None
    named = options.restore_file
    path = Path(options.save_dir) / LAST if named == LAST else Path(named)
    if not path.is_file():
        return None
    state = (read_fairseq(path).extra.get("train_iterator") or {}).get("division")
    return Division.from_state(state) if state else None
