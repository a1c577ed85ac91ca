"""Recipes against the scripts they take the place of: every option equal, or the difference stands in the recipe."""

from __future__ import annotations

import dataclasses
import re
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.needs import skip_without
from tests.support.script_lines import ROOT, TRAINING, cells, codes, split, without_plugin
from unival.core.recipe import load_recipe, to_arguments
from unival.losses import LossOptions
from unival.modeling.config import ARCHS, PARTS
from unival.specs import SpecOptions

skip_without("fairseq")

# The reference's programs read these, or they say where files are; fp16 and its window: recipes train in bf16.
NOT_COMPARED = {
    "data", "user_dir", "bpe_dir", "image_dir", "save_dir", "restore_file", "reset_optimizer", "reset_dataloader",
    "reset_meters", "fp16", "fp16_scale_window", "num_workers", "strict", "eval_cider", "eval_acc", "valid_batch_size",
    "eval_cider_cached_tokens", "read_from_img_path", "save_on_cuda", "audio_sample_rate", "text_selected_cols",
    "image_selected_cols", "detection_selected_cols", "drop_best_ratio", "drop_best_after", "gen_images_path",
    "resnet_model_path", "video_model_path", "audio_model_path", "vqgan_model_path", "vqgan_config_path",
    "clip_model_path", "neg_sample_dir", "ans2label_file", "ddp_backend", "save_interval_updates", "max_object_length",
    "selected_cols", "maximize_best_checkpoint_metric", "find_unused_parameters",
}  # fmt: skip
# Sizes of media that the task does not have.
OTHER_MEDIA = {
    "video_caption": {"patch_image_size"},
    "video_vqa_gen": {"patch_image_size"},
    "audio_caption": {"patch_image_size", "patch_frame_size", "num_frames"},
    "image_gen": {"patch_frame_size", "max_tgt_length"},
}
STILL = {"patch_frame_size"}  # tasks on images
# Option -> (recipe, script, what the recipe or one that it extends says about it).
EPOCHS = {
    "finetune/caption_coco": (4, 10),
    "finetune/refcoco": (8, 10),
    "finetune/refcocoplus": (8, 10),
    "finetune/refcocog": (8, 10),
    "finetune/snli_ve": (4, 10),
    "finetune/vqa_v2": (5, 20),
    "finetune/video_caption_msrvtt": (15, 20),
    "finetune/video_vqa_msrvtt": (25, 35),
    "finetune/audio_caption_audiocaps": (10, 25),
    "finetune/audio_caption_clotho": (10, 25),
}
DIFFERENT: dict[str, dict[str, tuple[Any, Any, str]]] = {
    name: {"max_epoch": (paper, script, f"max_epoch: {paper}  # script: {script}")}
    for name, (paper, script) in EPOCHS.items()
}
_NO_VIDEO = (None, "all_resnext101", "the script builds a video network too, which no row uses")
DIFFERENT["finetune/snli_ve"] |= {
    "video_encoder_name": _NO_VIDEO,
    "validate_interval_updates": (0, 50000, "script: 50000"),
}
for _task in ("caption_coco", "audio_caption_audiocaps", "vqa_v2"):
    DIFFERENT |= {f"linear/{_task}_{stage}": {"video_encoder_name": _NO_VIDEO} for stage in ("s1", "s2")}
_ROWS = "4 image and 4 video rows"
DIFFERENT |= {
    "pretrain/stage1": {
        "max_epoch": (0, 50, "script: the rate decays over 50 epochs"),
        "batch_size": (6, 2, "2 rows each of captions, questions and boxes"),
    },
    "pretrain/stage2": {
        "max_epoch": (0, 50, "script: the rate decays over 50 epochs"),
        "batch_size": (8, 4, _ROWS),
    },
    "pretrain/stage2_hires": {
        "max_epoch": (1, 50, "the script plans 50"),
        "batch_size": (8, 4, _ROWS),
    },
}
for _stage in ("finetune/image_gen_stage1", "finetune/image_gen_stage2"):
    DIFFERENT[_stage] = {"keep_last_epochs": (-1, 15, "scripts: keep_last_epochs 15")}
ENGINE = {"max_len_b": 200, "no_repeat_ngram_size": 0}  # tests/integration/plugin/test_effective_settings.py
FREEZING = {
    f"freeze_{part}" for part in ("encoder", "decoder", "image_encoder", "video_encoder", "audio_encoder")
}


def recipes() -> dict[str, str]:
    """Recipe below configs/, without ending -> the script it takes the place of."""
    found = {}
    for left, right in cells("## The reference's scripts"):
        match = re.fullmatch(r"run_scripts/((?:pretrain|finetune|linear|scst)/\w+)\.sh", codes(right)[0])
        if match:
            found[match.group(1)] = codes(left)[0]
    return found


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "OUT", "WEIGHTS"):
        monkeypatch.setenv(f"UNIVAL_{name}", str(tmp_path / name.lower()))


@cache
def flags(choices: tuple[tuple[str, str], ...]) -> set[str]:
    from unival.train import known_options

    return known_options(dict(choices))


def chain(path: Path) -> str:
    """Text of a recipe and of all that it extends."""
    text = path.read_text(encoding="utf-8")
    parents = (yaml.safe_load(text) or {}).get("extends", [])
    parts = [chain(path.parent / p) for p in ([parents] if isinstance(parents, str) else parents)]
    return "\n".join([text, *parts])


def differences(name: str, script: str) -> dict[str, tuple[Any, Any]]:
    """Options of the script whose value in the recipe is another: {option: (recipe, script)}."""
    from unival.train import parse

    recipe = load_recipe(ROOT / f"configs/{name}.yaml")
    ours: Namespace = parse(to_arguments(recipe, flags(tuple(recipe.choices.items()))))
    theirs = parse(without_plugin(TRAINING[script]))
    task = recipe.choices["task"]
    skipped = NOT_COMPARED | OTHER_MEDIA.get(task, set() if recipe.mixture else STILL)
    if recipe.options.get("disable_validation"):
        skipped |= {"fixed_validation_seed"}
    if name.startswith("linear/"):
        skipped |= FREEZING
    found = {}
    for option, _ in split(without_plugin(TRAINING[script]))[1]:
        if option in skipped or re.fullmatch(r"(image_text|video|audio)\w*_(data|cnt|selected_cols)", option):
            continue
        given = (getattr(ours, option), getattr(theirs, option))
        values = [defaults().get(option) if value is None else value for value in given]
        if option in ("eval_args", "scst_args"):
            for value in values:
                if task == "image_gen":  # the lengths are the task's own
                    for length in ("min_len", "max_len_a", "max_len_b"):
                        value.pop(length, None)
                else:  # what is not named is the engine's default, over which recipes write it
                    value.update({**ENGINE, **value})
        if values[0] != values[1]:
            found[option] = (values[0], values[1])
    return found


@cache
def defaults() -> dict[str, Any]:
    """What an option is that nobody gives."""
    from unival.tasks.options import TaskOptions

    owners = (TaskOptions, SpecOptions, LossOptions, *PARTS.values())
    return {f.name: f.default for owner in owners for f in dataclasses.fields(owner)} | ARCHS["unival_base"]


@pytest.mark.parametrize("name", sorted(recipes()))
def test_no_difference_is_silent(name: str) -> None:
    expected = DIFFERENT.get(name, {})
    assert differences(name, recipes()[name]) == {key: value[:2] for key, value in expected.items()}
    text = " ".join(chain(ROOT / f"configs/{name}.yaml").split())
    for _, _, phrase in expected.values():
        assert " ".join(phrase.split()) in text
