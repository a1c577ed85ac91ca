"""Memory that a program may still take: of a GPU, or of this machine within the limits of a container or a job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Bytes of memory that are free; None where the system does not say."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return min([*_available(), *left_in_groups()], default=None)


def _available() -> Iterator[int]:
    with contextlib.suppress(OSError):
        for line in (_PROC / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                yield int(line.split()[1]) * 1024


def left_in_groups(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Iterator[int]:
    """Bytes that the control groups of this process (a container's, a job's) still allow, of each that has a limit."""
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers:
                names, top = ("memory.max", "memory.current", "inactive_file"), cgroups
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                top = cgroups / "memory"
            else:
                continue
            group = top / name.lstrip("/")
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):
                    yield _left(folder, *names)
                if folder == top:
                    break


def _left(folder: Path, limit: str, usage: str, cache: str) -> int:
    """Raises ValueError where there is no limit."""
    most = int((folder / limit).read_text(encoding="ascii"))
    used = int((folder / usage).read_text(encoding="ascii"))
    entries = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    dropped = next((int(size) for name, size in entries if name == cache), 0)  # when memory is needed
    return max(0, most - used + dropped)
