"""What the engine's options may hold: values that it would trip over later, far from their cause."""

from __future__ import annotations

import argparse
import ast
import math
from collections.abc import Sequence
from typing import Any

from unival.errors import ConfigError, shortened

MOST = 2**31 - 1
# option -> smallest and largest value; of a list, each of its numbers
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "log_interval": (1, MOST),
    "num_workers": (0, 512),
    "batch_size": (1, MOST),
    "batch_size_valid": (1, MOST),
    "max_tokens": (1, MOST),
    "max_tokens_valid": (1, MOST),
    "max_epoch": (0, MOST),
    "max_update": (0, MOST),
    "max_valid_steps": (0, MOST),
    "stop_time_hours": (0, 1e6),
    "stop_min_lr": (-1, math.inf),
    "warmup_ratio": (0, 1),
    "update_freq": (1, MOST),
    "lr": (0, 1e38),  # what is too high shows in the run, which names the remedy
    "min_lr": (-1, 1e6),
    "clip_norm": (0, math.inf),
    "weight_decay": (0, 1e6),
    "adam_eps": (0, 1),
    "warmup_updates": (0, MOST),
    "label_smoothing": (0, 1),
    "ema_decay": (0, 1),
    "ema_start_update": (0, MOST),
    "save_interval": (1, MOST),
    "save_interval_updates": (0, MOST),
    "validate_interval": (1, MOST),
    "validate_interval_updates": (0, MOST),
    "validate_after_updates": (0, MOST),
    "keep_interval_updates": (-1, MOST),
    "keep_last_epochs": (-1, MOST),
    "keep_best_checkpoints": (-1, MOST),
    "patience": (-1, MOST),
    "data_buffer_size": (0, MOST),
    "distributed_world_size": (1, 100_000),
    "distributed_rank": (0, 100_000),
    "required_batch_size_multiple": (1, MOST),
    "required_seq_len_multiple": (1, MOST),
    "fp16_init_scale": (1, 2**31),
    "min_loss_scale": (0, math.inf),
}  # fmt: skip
PAIRS = ("adam_betas", "adamax_betas", "lamb_betas", "adafactor_eps")  # texts that the engine evaluates


def check_ranges(args: argparse.Namespace) -> None:
    """Check the engine's numbers. Raises ConfigError that names option, value and limits."""
    for name, (low, high) in RANGES.items():
        value = getattr(args, name, None)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                _check(name, number, low, high)
        if isinstance(value, (list, tuple)) and not value:
            raise ConfigError(f"--{_flag(name)} is an empty list; give at least one number")
    for name in PAIRS:
        value = getattr(args, name, None)
        if isinstance(value, str):
            _check_pair(name, value)


def _check(name: str, number: float, low: float, high: float) -> None:
    if not low <= number <= high:
        limits = f"at least {low:g}" if high >= MOST else f"{low:g} to {high:g}"
        raise ConfigError(f"--{_flag(name)} {number:g}: expected {limits}")


def _check_pair(name: str, text: str) -> None:
    """A pair of numbers as a literal; anything else in such a text would be run by the engine."""
    try:
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    if not pair or not all(isinstance(v, (int, float)) and 0 <= v < 1 for v in value):
        raise ConfigError(
            f"--{_flag(name)} {shortened(text, 80)}: expected two numbers from 0 to below 1, such as (0.9,0.999)"
        )


def _flag(name: str) -> str:
    return name.replace("_", "-")
