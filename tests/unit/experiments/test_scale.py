"""The prediction for several GPUs: the page shows what the script says, and it says nothing impossible."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unival.core.recipe import load_recipe
from unival.modeling.build import build_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(name="scale", scope="module")
def _scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "scripts" / "scale.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_scripts_table(scale: ModuleType) -> None:
    assert scale.table() in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_more_gpus_are_never_slower_nor_cheaper(scale: ModuleType) -> None:
    for stage in scale.STAGES:
        for cores in (1, 4, 14):
            for gpus in (1, 2, 4, 8, 16, 32, 64, 128, 256):
                once, twice = scale.hours(stage, gpus, cores), scale.hours(stage, 2 * gpus, cores)
                assert once / 2 - 1e-9 <= twice <= once


def test_what_is_short_bounds_an_update(scale: ModuleType) -> None:
    first, second = scale.STAGES
    assert scale.update(first, 8, 1).bound == "loader"
    assert scale.update(first, 8).bound == "compute"
    assert scale.update(first, 128).bound == "host"
    assert scale.cores_needed(first, 8) == pytest.approx(scale.KEPT * 622 / 56, rel=0.01)
    enough = scale.cores_needed(second, 16)
    assert scale.update(second, 16, enough * 1.01).bound != "loader"
    assert scale.update(second, 16, enough * 0.99).bound == "loader"


def test_a_price_adds_the_money(scale: ModuleType) -> None:
    lines = scale.table((8,), price=2.0).splitlines()
    hours = scale.hours(scale.STAGES[0], 8)
    assert lines[0].endswith("| money |") and lines[2].endswith(f"| {hours * 16:.0f} |")


@pytest.mark.parametrize("number", [0, 1])
def test_stages_are_those_of_the_recipes(scale: ModuleType, number: int) -> None:
    stage = scale.STAGES[number]
    recipe = load_recipe(ROOT / "configs" / "pretrain" / f"stage{stage.name}.yaml")
    assert recipe.options["max_update"] == stage.updates
    names = ("image_encoder_name", "video_encoder_name")
    networks = {name: recipe.options[name] for name in names if recipe.options.get(name)}
    assert ("video_encoder_name" in networks) == ("video" in stage.examples)
    with torch.device("meta"):
        model = build_model(recipe.choices["arch"], vocab_size=59457, **networks)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == stage.parameters
