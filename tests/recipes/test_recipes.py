"""Every recipe resolves into arguments that the engine accepts; every run script says what it would run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from unival.config import PARTS, ModelConfig
from unival.options import from_namespace, given
from unival.recipe import load_recipe, to_arguments
from unival.specs import SpecOptions

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("fairseq")


def recipes() -> list[str]:
    """Files below configs/ that name a task: the others are only extended."""
    return sorted(
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "configs").rglob("*.yaml")
        if "evaluate" not in p.parts
    )


def scripts() -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "run_scripts").glob("*/*.sh"))


@pytest.mark.parametrize("path", recipes())
def test_recipe_is_accepted(path, tmp_path, monkeypatch):
    from unival.tasks.options import TaskOptions
    from unival.train import known_options, parse

    for name in ("DATA", "OUT", "WEIGHTS"):
        monkeypatch.setenv(f"UNIVAL_{name}", str(tmp_path / name.lower()))
    recipe = load_recipe(ROOT / path)
    if not (recipe.data or recipe.mixture):
        pytest.skip("only extended by other recipes")
    args = parse(to_arguments(recipe, known_options(recipe.choices)))
    assert args.task == recipe.choices["task"] and args.arch == recipe.choices["arch"]
    assert Path(args.save_dir).is_relative_to(tmp_path), "outputs go below UNIVAL_OUT"
    assert args.max_update or args.max_epoch, "a run has an end"
    from_namespace(args, TaskOptions)
    from_namespace(args, SpecOptions)  # names of prompts, ranges of values
    options = {name: value for part in PARTS.values() for name, value in given(args, part).items()}
    ModelConfig.from_options(args.arch, 1000, **options)
    for name, value in recipe.options.items():
        assert hasattr(args, name.replace("-", "_")), name
        if isinstance(value, bool) and value:
            assert getattr(args, name) is True, name


@pytest.mark.parametrize("path", scripts())
def test_run_script_says_what_it_would_run(path, tmp_path):
    env = {**os.environ, "DRY_RUN": "1", "GPUS": "1", "UNIVAL_OUT": str(tmp_path)}
    done = subprocess.run(
        ["bash", ROOT / path, "CHECKPOINT", "TABLE"], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "-m unival" in done.stdout
    for word in done.stdout.split():
        if word.startswith("configs/"):
            assert (ROOT / word).is_file(), word
    assert len((ROOT / path).read_text().splitlines()) <= 12 and os.access(ROOT / path, os.R_OK)


def test_no_path_of_a_machine():
    for path in [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "run_scripts").rglob("*.sh")]:
        for line in path.read_text().splitlines():
            text = line.split("#!")[0]
            assert not any(
                f"{start}/" in text for start in (" /home", " /root", " /work", '"/tmp', " /data")
            ), (path, line)
