"""Recipes and training options that cannot be meant: refused in one line, never a traceback, never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unival.errors import UnivalError

FINETUNE = str(Path(__file__).resolve().parents[3] / "configs" / "tiny" / "finetune.yaml")
LONG = "x" * 5000
ODD: list[Any] = [None, 1, 1.5, True, "", LONG, [1], [None], {"a": 1}, [["a"]], "\0", float("nan"), 10**30]
KEYS = ("extends", "task", "arch", "criterion", "data", "mixture", "sources", "optimization", "checkpoint")
OPTIONS = {
    "update-freq": ("0", "-1", "(", "[1", "1e400", "9" * 5000, "\0", "x", "0,1"),
    "log-interval": ("0", "x", "-1"),
    "num-workers": ("-1", "1.5"),
    "seed": ("-1", "9" * 30),
    "adam-betas": ("(", "1", "(0.9,)", "(0.9,2)", "x", "__import__('pathlib').Path('ran').touch()"),
    "lr": ("", "x", "nan", "-1", "[", "9" * 5000, "inf", "__import__('pathlib').Path('ran').touch()"),
    "batch-size": ("0", "-1"),
    "warmup-ratio": ("2", "nan"),
    "user-dir": ("/nowhere",),
    "eval-args": ("[]", "{"),
}


def recipe(folder: Path, **changes: Any) -> Path:
    """A recipe of the caption task with some of its keys replaced; without a key where the change is ``...``."""
    content: dict[str, Any] = {
        "extends": FINETUNE,
        "task": "caption",
        "data": {"train": "train.tsv", "valid": "val.tsv"},
        "checkpoint": {"save_dir": str(folder / "run")},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not ...}))
    return path


def ends(path: Path, *options: str) -> str:
    """Parse a recipe as training does; the refusal, or an empty text."""
    from unival.cli.train import resolve
    from unival.train import adapt, parse

    try:
        adapt(parse(resolve(str(path), list(options))))
    except UnivalError as error:
        assert len(str(error)) < 12000
        return str(error)
    return ""


@pytest.mark.parametrize("key", KEYS)
def test_what_stands_where_something_else_belongs(key: str, tmp_path: Path) -> None:
    refused = [bool(ends(recipe(tmp_path, **{key: value}))) for value in ODD]
    assert sum(refused) >= len(ODD) - 4  # null, an empty text and the like take a key back


def test_names_and_folders_are_texts(tmp_path: Path) -> None:
    for value in (1, 1.5, [1], {"a": 1}, 10**30):
        assert "'checkpoint.save_dir' must be a folder" in ends(
            recipe(tmp_path, checkpoint={"save_dir": value})
        )
        assert "'extends' names a recipe" in ends(recipe(tmp_path, extends=value))
        assert "'arch' must be a name" in ends(recipe(tmp_path, arch=value))
    assert "'arch' is missing" in ends(recipe(tmp_path, extends=...))
    assert "'mixture' must be a list" in ends(recipe(tmp_path, mixture="x", data={}))
    assert "'optimization' must be 'name: value' lines" in ends(recipe(tmp_path, optimization={1: 2}))


@pytest.mark.parametrize(
    "text",
    ["&a {extends: *a}", "extends: 2020-01-01", "task: " + "9" * 5000, "a: " + "[" * 3000, "? {a: 1}\n: 2",
     "!!python/object/apply:os.system ['touch ran']", "1: 2", "\ttask: x", "[1, 2]", "\0", "task: 2020-99-99"],
)  # fmt: skip
def test_odd_yaml(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert ends(path) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("option", OPTIONS)
def test_options_out_of_their_range(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe(tmp_path)
    for value in OPTIONS[option]:
        said = ends(path, f"--{option}={value}")
        assert said, f"--{option} {value[:40]} is accepted"
        assert len(said) < 700 and not (tmp_path / "ran").exists()
