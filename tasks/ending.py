"""When a run ends: updates, epochs, hours, or validations without progress.

The engine keeps the count of validations without progress on a function, where neither a checkpoint nor the next run
of the same process finds it as it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairseq_cli import train as engine

_KEPT = ("best", "num_runs")  # attributes of the engine's function


def patience_state() -> dict[str, Any]:
    """Best value and validations since then, for a checkpoint."""
    return {
        name: getattr(engine.should_stop_early, name)
        for name in _KEPT
        if hasattr(engine.should_stop_early, name)
    }


def restore_patience(state: Mapping[str, Any] | None) -> None:
    """Put a checkpoint's state back; None for a run that begins."""
    for name in _KEPT:
        if hasattr(engine.should_stop_early, name):
            delattr(engine.should_stop_early, name)
    for name in _KEPT:
        if state and name in state:
            setattr(engine.should_stop_early, name, state[name])


def finished(cfg: Any, updates: int, next_epoch: int, seconds: float) -> str:
    """Say why nothing is left of a run that has done so much; empty when something is."""
    last, epochs = cfg.optimization.max_update, cfg.optimization.max_epoch
    hours, patience = cfg.optimization.stop_time_hours, cfg.checkpoint.patience
    if last and updates >= last:
        return f"update {updates} of {last}; a larger --max-update goes on"
    if epochs and next_epoch > epochs:
        return f"all {epochs} epochs; a larger --max-epoch goes on"
    if hours > 0 and seconds > hours * 3600:
        return f"{seconds / 3600:.1f} of {hours:g} hours; a larger --stop-time-hours goes on"
    stale = getattr(engine.should_stop_early, "num_runs", 0)
    if patience > 0 and stale >= patience:
        return f"{stale} validations without progress, --patience {patience}; a larger one goes on"
    return ""
