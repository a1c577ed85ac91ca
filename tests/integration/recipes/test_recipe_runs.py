"""Every recipe below configs/ runs: three updates and an evaluation, at tiny size, on media in the official layouts."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.miniature import Miniature
from tests.support.needs import skip_without
from tests.support.recipe_lists import CONFIGS, EVALUATION, EXTENDED, RUN_HERE, names, parents
from unival.cli import main
from unival.core.paths import expand_braces
from unival.core.recipe import Recipe, load_recipe
from unival.modeling.config import FRAMES, SOUND_PICTURE

skip_without("fairseq")

MODEL = {
    "encoder_embed_dim": 32,
    "decoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "decoder_ffn_embed_dim": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "resnet_type": "test_resnet",
    "image_bucket_size": 8,
    "token_bucket_size": 32,
    # files of pretrained networks: their formats have tests of their own
    "resnet_model_path": None,
    "video_model_path": None,
    "audio_model_path": None,
}
INPUTS = {
    "patch_image_size": 64,
    "patch_frame_size": 64,
    "num_frames": 2,
    "code_image_size": 32,
    "sample_rate": 16000,
    "max_audio_len": 8000,
}
OPTIMIZATION = {
    "batch_size": 2,
    "update_freq": 1,
    "max_update": 3,
    "total_num_update": None,
    "bf16": False,
    "fp16": False,
}


def short(recipe: Recipe) -> dict[str, Any]:
    """The recipe's decoding settings, with short outputs and few pictures."""
    decoding = dict(recipe.options.get("eval_args") or {})
    if recipe.choices["task"] == "image_gen":
        decoding["beam"] = 3
    elif "prompt_type" not in recipe.options:
        decoding["max_len_b"] = min(8, decoding.get("max_len_b", 8))
    return decoding


class Runs:
    """Runs recipes once each, and before them the recipes whose checkpoints they start from."""

    def __init__(self, mini: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("data", "weights", "out"):
            monkeypatch.setenv(f"UNIVAL_{name.upper()}", str(getattr(mini, name)))
        self.mini = mini
        self.done: dict[str, Path] = {}
        self.makers = {str(self.recipe(n).options["save_dir"]): n for n in RUN_HERE}

    @staticmethod
    @cache  # it depends on variables that stay while these tests run
    def recipe(name: str) -> Recipe:
        return load_recipe(CONFIGS / name)

    def train(self, name: str) -> Path:
        """Folder of the run."""
        if name not in self.done:
            recipe = self.recipe(name)
            self.tables(recipe)
            start = recipe.options.get("finetune_from_model")
            if start:
                self.checkpoint(Path(start))
            folder = Path(recipe.options["save_dir"])
            assert self.run(["train", str(self.small(name, recipe))], name) == 0, name
            self.done[name] = folder
        return self.done[name]

    @staticmethod
    def run(words: list[str], name: str) -> int:
        """Run ``unival WORDS``; ``name`` of the recipe for whoever runs it elsewhere."""
        return main(words)

    def checkpoint(self, path: Path) -> None:
        """Make the checkpoint that a recipe starts from: its own maker's, or the last stage's for a released one."""
        if not path.exists():
            maker = self.makers.get(str(path.parent))
            folder = self.train(maker or "pretrain/stage2_hires.yaml")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(folder / "checkpoint_last.pt", path)

    def tables(self, recipe: Recipe) -> None:
        """Make the tables, archives and lists that a recipe names."""

        def walk(value: Any) -> Iterator[str]:
            if isinstance(value, dict):
                value = list(value.values())
            if isinstance(value, list):
                for item in value:
                    yield from walk(item)
            elif isinstance(value, str):
                yield from expand_braces(value)

        there = re.compile(rf"{re.escape(str(self.mini.data))}/(world|standin)/")
        for text in walk([recipe.data, recipe.mixture, recipe.options.get("ans2label_file")]):
            if not there.match(text) and text.startswith((str(self.mini.data), str(self.mini.out))):
                self.mini.file(text)

    def small(self, name: str, recipe: Recipe) -> Path:
        """The recipe with a tiny model and three updates laid over it; all else is the recipe's."""
        options = recipe.options
        model = dict(MODEL)
        if options.get("image_encoder_name") == "timm":
            model |= {"image_backbone": "mobilenetv3_small_050", "image_backbone_weights": None}
        if options.get("video_encoder_name", FRAMES) != FRAMES:
            model["video_encoder_name"] = "all_resnext14"
        if options.get("audio_encoder_name", SOUND_PICTURE) != SOUND_PICTURE:
            model |= {"audio_encoder_name": "pann_cnn6", "hop_size": 320}
        saved = options["save_dir"] in {str(Path(p).parent) for p in self.starts()} or name in KEPT.values()
        return self.lay_over(
            name,
            recipe,
            {
                "arch": "unival_tiny",
                "model": model,
                "optimization": dict(OPTIMIZATION),
                "checkpoint": {
                    "init_from": None,
                    "no_save": not saved,
                    "no_save_optimizer_state": True,
                    "networks_from_scratch": True,
                },
                "run": {"num_workers": 0, "log_interval": 1},
            },
        )

    def lay_over(self, name: str, recipe: Recipe, sections: dict[str, Any]) -> Path:
        """Write a recipe that extends ``name`` and reads the miniature."""
        options = recipe.options
        inputs: dict[str, Any] = {**INPUTS, "bpe_dir": str(self.mini.weights / "bpe")}
        if recipe.choices["task"] == "image_gen":
            if "vqgan_model_path" in options:
                pytest.importorskip("open_clip")
                inputs |= {**self.mini.image_networks(), "vqgan_config_path": None}
            inputs |= {key: None for key in ("inception_model_path", "fid_statistics") if key in options}
            sections["loss"] = {"constraint_range": None}  # numbers of the released vocabulary
        decoding = {"eval_args": short(recipe)} if options.get("eval_args") else {}
        validation = {"batch_size_valid": 8, **decoding}
        path = self.mini.out / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"extends": str(CONFIGS / name), "inputs": inputs, "validation": validation, **sections}
        path.write_text(yaml.safe_dump(content))
        return path

    def starts(self) -> list[str]:
        found = [self.recipe(n).options.get("finetune_from_model") for n in RUN_HERE]
        return [start for start in found if start]


# First word of a task -> the run whose networks its evaluation needs; all others need those of the last stage.
KEPT = {"audio": "finetune/audio_caption_audiocaps.yaml", "": "pretrain/stage2_hires.yaml"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    Runs.recipe.cache_clear()
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Runs(Miniature(tmp_path_factory.mktemp("recipes")), monkeypatch)


@pytest.mark.parametrize("name", RUN_HERE)
def test_recipe_trains_and_validates(name: str, runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = runs.train(name)
    records = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if r["split"] == "train"]
    assert len(losses) == 3 and all(abs(loss) < 1e4 for loss in losses)
    recipe = runs.recipe(name)
    if recipe.options.get("disable_validation"):
        return
    scores = [r for r in records if r["split"] == "valid"]
    assert len(scores) == 1
    assert recipe.options.get("best_checkpoint_metric", "loss") in scores[0]


@pytest.mark.parametrize("name", EVALUATION)
def test_recipe_evaluates(name: str, runs: Runs, tmp_path: Path) -> None:
    recipe = runs.recipe(name)
    runs.tables(recipe)
    first = str(recipe.choices["task"]).split("_")[0]
    folder = runs.train(KEPT.get(first, KEPT[""]))
    laid = runs.lay_over(name, recipe, {})
    words = [str(folder / "checkpoint_last.pt"), "--recipe", str(laid), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *words, "--limit=3"]) == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert 1 <= result["n"] <= 3 and result["coverage"] == 1.0
    assert result["metrics"], "the miniature has targets"


def test_every_recipe_is_covered() -> None:
    """None can rot: what is not run itself is part of a recipe that is."""
    extended = {p for n in names() for p in parents(CONFIGS / n)}
    alone = {"own_data/starter.yaml", "own_data/pretrained.yaml"}  # what "unival data convert" builds on
    assert {n for n in EXTENDED if CONFIGS / n not in extended} <= alone, "neither a run nor part of one"
