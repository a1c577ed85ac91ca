"""The script of the miniature experiments: its runs name recipes that exist, its tables hold what the runs left."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(name="script")
def _script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("UNIVAL_OUT", str(tmp_path))
    path = ROOT / "scripts" / "experiments" / "miniature.py"
    spec = importlib.util.spec_from_file_location("miniature", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "miniature", module)
    spec.loader.exec_module(module)
    return module


def leave(script: ModuleType, name: str, seed: int, **values: object) -> None:
    target = script.folder(name, seed)
    target.mkdir(parents=True, exist_ok=True)
    found = {"seconds": 10.0, "gigabytes": 1.0, "updates": 1, "scores": {}, **values}
    (target / "run.json").write_text(json.dumps(found))


def test_every_run_has_a_recipe_and_a_start(script: ModuleType) -> None:
    names = [run.name for run in script.RUNS]
    for position, run in enumerate(script.RUNS):
        assert (script.RECIPES / f"{run.recipe}.yaml").is_file()
        assert run.start is None or run.start in names[:position]
    used = {run.recipe for run in script.RUNS} | {"base"}
    assert used == {path.stem for path in script.RECIPES.glob("*.yaml")}, "a recipe that no run uses"


def test_tables_show_mean_and_spread_over_the_seeds(script: ModuleType) -> None:
    assert "| balanced | - | - | - |" in script.tables()
    for seed, cider in enumerate((0.4, 0.5, 0.6), 1):
        leave(
            script,
            "balanced",
            seed,
            scores={"vqa_vqa_score": 0.5, "caption_cider": cider, "caption_exact": 0.1},
        )
    leave(script, "one_stage", 1, seconds=70.0, updates=301, gigabytes=2.0)
    leave(script, "one_stage-empty", 1)
    text = script.tables()
    assert "| balanced | 0.500 ± 0.000 | 0.500 ± 0.100 | 0.100 ± 0.000 |" in text
    # 60 seconds for 300 updates; a single seed is marked
    assert "20.0 (1 seeds) | 2.00 (1 seeds) |" in text


def test_the_last_scores_of_a_run_count(script: ModuleType, tmp_path: Path) -> None:
    records = [
        {"update": 20, "split": "train", "loss": 2.0},
        {"update": 20, "split": "valid", "loss": 3.0, "cider": 0.1},
        {"update": 40, "split": "valid", "loss": 2.0, "cider": 0.2},
    ]
    (tmp_path / "train_log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert script.ended(tmp_path) == {"updates": 40, "scores": {"loss": 2.0, "cider": 0.2}}


def test_a_run_waits_for_its_start_and_never_more_than_asked_run(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    alive: list[int] = []

    def begin(run: object, seed: int) -> int:
        name = str(run.name)  # type: ignore[attr-defined]
        start = run.start  # type: ignore[attr-defined]
        assert start is None or (script.folder(start, seed) / "run.json").is_file()
        begun.append(name)
        alive.append(len(begun) - len(list(script.folder("x", 1).parent.glob("*/run.json"))))
        target = script.folder(name, seed)
        target.mkdir(parents=True)
        (target / "train_log.jsonl").write_text(
            json.dumps({"update": 1, "split": "valid", "loss": 1.0}) + "\n"
        )
        child = os.fork()
        if child == 0:
            time.sleep(0.02)
            os._exit(1 if name == "text" else 0)
        return child

    monkeypatch.setattr(script, "begin", begin)
    todo = [(run, 1) for run in script.RUNS if run.name != "text" and run.start != "text"]
    script.train(todo, 2)
    assert sorted(begun) == sorted(run.name for run, _ in todo) and max(alive) == 2
    script.train(todo, 2)
    assert len(begun) == len(todo), "what has ended is not made again"
    with pytest.raises(SystemExit, match="text, seed 1, ended with status"):
        script.train([(script.Run("text", "text"), 1)], 2)
