"""Small helpers of the plugin's tests."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch


def weights(folder: Path, name: str = "checkpoint_last.pt") -> dict[str, Any]:
    """Contents of a checkpoint."""
    with torch.serialization.safe_globals([Namespace]):
        return torch.load(folder / name, weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def refused(run: Any, *parts: str) -> None:
    """The run ended with exit code 2 and one clean message on standard error that holds ``parts``."""
    assert run.code == 2, run.text
    assert "Traceback" not in run.text, run.text
    lines = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, run.err
    for part in parts:
        assert part in run.err, run.err


def group_is_gone(number: int, seconds: float = 60.0) -> bool:
    """Whether no process of a group is left, at once or within a while (Python's resource tracker ends last)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(number, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
