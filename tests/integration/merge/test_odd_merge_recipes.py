"""Merge recipes with values of another kind: one line, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unival.errors import ConfigError
from unival.merge.chain import ChainRecipe
from unival.merge.recipe import MergeRecipe, read_document
from unival.merge.sweep import SweepRecipe

ODD: list[Any] = [None, 1, -1, "x", "", [], [1], [None], {}, {"a": 1}, float("nan"), True, "x" * 5000, [[1]]]
MERGE = {"method": "linear", "models": ["a/model", {"path": "b/model", "name": "b"}], "out": "merged"}
SWEEP = {"out": "sweep", "evaluations": [{"recipe": "r.yaml"}], "merge": MERGE, "grid": {"lambda": [0.5]}}
CHAIN = {
    "out": "chain",
    "start": "s.pt",
    "tasks": {"caption": {"recipe": "r.yaml"}, "vqa": {"recipe": "q.yaml"}},
}


def read(content: Any, cls: type, folder: Path) -> str:
    """The refusal of a recipe, or an empty text."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    try:
        read_document(path, cls)
    except ConfigError as error:
        assert len(str(error)) < 12000
        return str(error)
    return ""


@pytest.mark.parametrize(("cls", "good"), [(MergeRecipe, MERGE), (SweepRecipe, SWEEP), (ChainRecipe, CHAIN)])
def test_every_field(cls: type, good: dict[str, Any], tmp_path: Path) -> None:
    assert read(good, cls, tmp_path) == ""
    for name in cls.__dataclass_fields__:  # type: ignore[attr-defined]
        refused = [bool(read({**good, name: value}, cls, tmp_path)) for value in ODD]
        assert sum(refused) >= 6, name
    for value in (*ODD[1:], {1: 2}):
        assert read(value, cls, tmp_path)


def test_fields_of_models_and_parts(tmp_path: Path) -> None:
    for name in ("path", "name", "coefficient", "fisher"):
        for value in ODD:
            read(
                {**MERGE, "models": [{"path": "a", "name": "a", name: value}, "b/model"]},
                MergeRecipe,
                tmp_path,
            )
    part = {"include": "encoder", "coefficients": [0.5, 0.5]}
    assert read({**MERGE, "parts": [part]}, MergeRecipe, tmp_path) == ""
    for name in ("include", "exclude", "coefficients"):
        for value in ODD:
            read({**MERGE, "parts": [{**part, name: value}]}, MergeRecipe, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lambdas": [0, "a"]}, "'lambdas' 'a': expected a number"),
        ({"scale": False}, "'scale' False: expected a number"),
        ({"out": 0.5}, "'out' 0.5: expected a text"),
        ({"models": "fisher"}, "'models' 'fisher': expected a list"),
        ({"base": -1}, "'base' -1: expected a text"),
        ({"models": ["a", {"path": "b", "name": -1}]}, "'name' -1: expected a text"),
        (
            {"models": [{"path": "a", "coefficient": float("nan")}, "b"]},
            "'coefficient' nan: expected a number",
        ),
        ({"seed": 1.5}, "'seed' 1.5: expected a whole number"),
    ],
)
def test_what_is_said(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in read({**MERGE, **changes}, MergeRecipe, tmp_path)
