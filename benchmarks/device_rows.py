"""Rows of the benchmarks of a device: printed as a table while they come, and kept as JSON lines for the summary."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# TFLOP a second of dense bfloat16 products, as the makers' data sheets say them.
DATA_SHEET = {
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
}


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object], times: int, device: str, warm: int = 0) -> float:
    """Median seconds of a run, with everything that it handed to the device."""
    for _ in range(warm):
        run()
    taken = []
    for _ in range(times):
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def data_sheet(device: str) -> float | None:
    """FLOP a second that the maker says of a device, for bfloat16; None where this file does not know it."""
    name = device_name(device)
    return next((peak * 1e12 for known, peak in DATA_SHEET.items() if known in name), None)


def matrix_peak(precision: torch.dtype, device: str) -> float:
    """FLOP a second of a large matrix product."""
    n = 8192 if device.startswith("cuda") else 512
    a, b = (torch.randn(n, n, device=device, dtype=precision) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda: a @ b, 5, device, warm=3)


def problem(error: BaseException) -> str:
    """The last cause of an error in one line of a table."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".replace("|", "/")[:160]


class Rows:
    """A table on the output, and lines appended to ``path``, one by one: what is killed leaves what it had."""

    def __init__(self, path: str | None, head: tuple[str, ...]) -> None:
        self.path, self.failed = path, 0
        self.width = len(head)
        print(f"| {' | '.join(head)} |\n{'|---' * self.width}|", flush=True)

    def add(self, cells: list[Any], **values: Any) -> None:
        """Show cells and keep values. With ``error`` the last cell says it."""
        if "error" in values:
            self.failed += 1
            cells = [*cells, *["-"] * (self.width - len(cells) - 1), values["error"]]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        keep(self.path, **values)


def keep(path: str | None, **values: Any) -> None:
    """Append a line of JSON."""
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
