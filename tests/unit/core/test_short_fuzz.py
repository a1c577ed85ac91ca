"""A short form of ``benchmarks/fuzz.py``: mutated files are read or refused in documented words."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "benchmarks" / "fuzz.py"
SLOW = ("checkpoints", "configs")  # each item builds a model
NAMES = (
    *("tables", "descriptions", "recipes", "merge recipes", "vocabularies", "checkpoints", "safetensors"),
    *("configs", "predictions and references", "answer lists", "media"),
)


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_program", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_program"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kinds(fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    found: dict[str, object] = fuzz.kinds(tmp_path_factory.mktemp("fuzz") / "world")
    assert tuple(found) == NAMES
    return found


@pytest.mark.parametrize("name", NAMES)
def test_items_of_every_kind(name: str, fuzz: ModuleType, kinds: dict[str, object], tmp_path: Path) -> None:
    kind = kinds[name]
    (tmp_path / "t.csv").write_text("id,image,caption\n1,1.jpg,a cat\n2,2.jpg,a dog\n")
    for number, (file, data) in enumerate(kind.seeds.items()):  # type: ignore[attr-defined]
        (tmp_path / f"{number}-{file}").write_bytes(data)
        kind.read(tmp_path / f"{number}-{file}")  # type: ignore[attr-defined]
    found = [fuzz.outcome(kind, 1, number, tmp_path) for number in range(8 if name in SLOW else 60)]
    assert set(found) <= {"read", "refused"}
    assert "refused" in found


def test_an_item_is_a_function_of_its_number(fuzz: ModuleType, kinds: dict[str, object]) -> None:
    for kind in kinds.values():
        assert fuzz.mutated(kind, 1, 5) == fuzz.mutated(kind, 1, 5) != fuzz.mutated(kind, 1, 6)


def test_what_hangs_or_dies_is_counted(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import time

    monkeypatch.setattr(fuzz, "SECONDS", 1.0)

    def read(path: Path) -> None:
        number = int(path.name.partition("-")[0])
        if number == 1:
            time.sleep(60)
        if number == 2:
            os.kill(os.getpid(), 9)
        if number == 3:
            raise TypeError("a fault")

    kind = fuzz.Kind({"x.txt": b"some text"}, read)
    found = dict(fuzz.campaign(kind, 0, 0, 5, tmp_path))
    assert found[0] == found[4] == "read"
    assert (
        found[1].startswith("hang") and found[2] == "died (signal 9)" and found[3].startswith("TypeError (")
    )
