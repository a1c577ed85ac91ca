"""Which trainings share their rows between two processes on a CPU, and what each is told."""

from __future__ import annotations

import pytest
import yaml

from unival.launch.sharing import halves


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    content = {
        "task": "caption",
        "arch": "unival_tiny",
        "model": {"encoder_embed_dim": 128},
        "optimization": {"batch_size": 24},
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_small_model_is_shared(recipe):
    assert halves(["train", recipe, "--lr=1"], 2) == ["train", recipe, "--lr=1", "--batch-size=12"]


@pytest.mark.parametrize("words", [["--batch-size=32"], ["--batch-size", "32"], ["--batch_size=32"]])
def test_the_command_lines_rows_count(recipe, words):
    assert halves(["train", recipe, *words], 8) == ["train", recipe, *words, "--batch-size=16"]


@pytest.mark.parametrize(
    "words",
    [
        ["--encoder-embed-dim=768"],  # two threads are busy
        ["--batch-size=25"],  # has no half
        ["--batch-size=14"],  # too few for the statistics of BatchNorm
        ["--batch-size=many"],  # for the training to refuse
        ["--dry-run"],
    ],
)
def test_others_are_not(recipe, words):
    assert halves(["train", recipe, *words], 2) is None


def test_nor_on_one_core_nor_another_verb_nor_without_a_recipe(recipe, tmp_path):
    assert halves(["train", recipe], 1) is None
    assert halves(["evaluate", recipe], 2) is None
    assert halves(["train"], 2) is None
    assert halves(["train", "--help"], 2) is None
    assert halves(["train", str(tmp_path / "absent.yaml")], 2) is None
