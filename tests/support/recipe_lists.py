"""The recipes below configs/, by what a test does with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unival.core.recipe import load_recipe
from unival.core.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
ELSEWHERE = {"experiments"}  # run by tests of their own


def content(path: Path) -> dict[str, Any]:
    return read_yaml(path) or {}


def is_merge(path: Path) -> bool:
    """Merges, sweeps and chains have a format of their own."""
    return path.parent.name == "merge" or bool(
        {"tasks", "models", "evaluations", "merge"} & set(content(path))
    )


def names() -> list[str]:
    """Recipes of trainings and evaluations, below configs/."""
    return sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*.yaml") if not is_merge(p))


def parents(path: Path) -> list[Path]:
    named = content(path).get("extends", [])
    return [(path.parent / p).resolve() for p in ([named] if isinstance(named, str) else named)]


def _data(name: str) -> Mapping[str, Any]:
    return load_recipe(CONFIGS / name).data


def _trains(name: str) -> bool:
    if name.startswith("defaults/") or Path(name).name.startswith("base"):
        return False  # made to be extended
    return bool(_data(name).get("train") or load_recipe(CONFIGS / name).mixture)


MERGES = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*.yaml") if is_merge(p))
TRAINING = [n for n in names() if _trains(n)]
EVALUATION = [n for n in names() if n.startswith("evaluate/") and n not in TRAINING and _data(n)]
EXTENDED = [n for n in names() if n not in (*TRAINING, *EVALUATION)]
RUN_HERE = [n for n in TRAINING if n.split("/")[0] not in ELSEWHERE]
