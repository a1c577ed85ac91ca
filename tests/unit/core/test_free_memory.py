"""What a container or a job may still take, from the files that Linux shows of its control groups."""

from __future__ import annotations

from pathlib import Path

import torch

from unival.core.free_memory import free_memory, left_in_groups


def group(folder: Path, limit: str, used: int, cache: int, names: tuple[str, str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


def test_a_job_in_a_container_has_the_limits_of_both(tmp_path: Path) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/slurm/job_7/step\n")
    group(tmp_path / "slurm/job_7/step", "max", 70, 0, names)
    group(tmp_path / "slurm/job_7", "100", 70, 20, names)
    group(tmp_path / "slurm", "1000", 900, 0, names)
    assert sorted(left_in_groups(tmp_path, tmp_path)) == [50, 100]


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("5:cpu,cpuacct:/a\n4:memory:/a/b\n")
    group(tmp_path / "memory/a/b", "300", 400, 0, names)
    group(tmp_path / "memory", str(2**63 - 4096), 10, 0, names)
    assert sorted(left_in_groups(tmp_path, tmp_path)) == [0, 2**63 - 4096 - 10]


def test_nothing_is_known_of_other_systems(tmp_path: Path) -> None:
    assert list(left_in_groups(tmp_path / "none", tmp_path)) == []
    assert free_memory(torch.device("cpu")) is None or free_memory(torch.device("cpu")) > 0
