"""Every command line of the reference's scripts: each option arrives with its meaning, or is refused with a remedy.

The arguments are what the scripts pass after shell expansion (data/script_args.json.gz, 126 command lines of 74
scripts). Programs other than training are translated by the tables in docs/experiments.md.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from argparse import Namespace
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

from tests.support.needs import skip_without
from tests.support.script_lines import (
    BROKEN,
    COMMANDS,
    DOCS,
    SCRIPTS,
    TRAINING,
    cells,
    codes,
    split,
    without_plugin,
)
from unival.core.options import from_namespace, given, parse_mapping
from unival.errors import ConfigError
from unival.losses import LossOptions
from unival.modeling.config import PARTS, REFUSED, ModelConfig
from unival.specs import SpecOptions

skip_without("fairseq")


@cache
def parsed(script: str) -> Namespace:
    from unival.train import parse

    return parse(without_plugin(TRAINING[script]))


def dataclasses_of(args: Namespace) -> dict[str, Any]:
    """Every option of ours that the run would use: {option: value}, from the dataclass that owns it."""
    from fairseq.criterions import CRITERION_REGISTRY

    from unival.tasks.options import TaskOptions

    values = dataclasses.asdict(from_namespace(args, TaskOptions))
    values |= dataclasses.asdict(from_namespace(args, SpecOptions))
    options = {name: value for part in PARTS.values() for name, value in given(args, part).items()}
    options |= {name: value for name in REFUSED if (value := getattr(args, name, None)) is not None}
    values |= ModelConfig.from_options(args.arch, 59457, **options).options()
    if issubclass(
        CRITERION_REGISTRY[args.criterion], CRITERION_REGISTRY["adjust_label_smoothed_cross_entropy"]
    ):
        values |= dataclasses.asdict(from_namespace(args, LossOptions))
    return values


def same(text: str | None, value: Any) -> bool:
    """True when ``value`` is what the words of the command line mean."""
    if text is None:
        return value is True
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, float)):
        return float(text) == float(value)
    if isinstance(value, dict):
        return parse_mapping(text) == value
    if isinstance(value, (list, tuple)):
        return [float(part) for part in text.strip("()").split(",")] == [float(part) for part in value]
    return value == text or str(value) == str(ast.literal_eval(text) if text.startswith("(") else text)


def test_the_reference_is_complete() -> None:
    assert len(SCRIPTS) == 74 and len(COMMANDS) == 126 and len(TRAINING) == 53


@pytest.mark.parametrize("script", sorted(TRAINING))
def test_training_options_arrive(script: str) -> None:
    args = parsed(script)
    _, options = split(without_plugin(TRAINING[script]))
    last = dict(options)  # given twice, the later one counts, as in the reference (trap T6)
    ours = dataclasses_of(args)
    for name, text in last.items():
        if script == BROKEN and name == "use_dataaug":
            continue
        value = ours[name] if ours.get(name) is not None else getattr(args, name)
        assert same(text, value), f"--{name} {text!r} arrives as {value!r}"


def test_values_arrive_where_they_act() -> None:
    """The same by hand for one script of each kind: optimizer, schedule, sizes, freezing, losses, decoding."""
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    from unival.tasks.mixture import MixtureOptions
    from unival.tasks.options import TaskOptions

    caption = parsed("caption/unival_caption_stage_1.sh")
    cfg = convert_namespace_to_omegaconf(caption)
    assert (cfg.optimization.lr, cfg.optimization.update_freq, cfg.optimization.max_epoch) == (
        [1e-5],
        [1],
        10,
    )
    assert (cfg.dataset.batch_size, cfg.optimization.clip_norm) == (16, 1.0)
    assert (cfg.optimizer.weight_decay, cfg.optimizer.adam_betas) == (0.01, "(0.9,0.999)")
    assert cfg.checkpoint.best_checkpoint_metric == "cider" and cfg.common.fp16
    task, loss = from_namespace(caption, TaskOptions), from_namespace(caption, LossOptions)
    assert task.warmup_ratio == 0.06 and task.selected_cols == "0,4,2"
    assert task.eval_args == {"beam": 5, "stop_on_max_len": True, "max_len_b": 22, "no_repeat_ngram_size": 3}
    assert (loss.label_smoothing, loss.log_end) == (0.1, 0.75)
    assert (loss.drop_worst_ratio, loss.drop_worst_after) == (0.05, 6000)
    model = dataclasses_of(caption)
    assert model["freeze_encoder_embedding"] and model["encoder_drop_path_rate"] == 0.1
    assert (model["image_encoder_name"], model["video_encoder_name"]) == ("timm_resnet", "all_resnext101")

    linear = dataclasses_of(parsed("caption/onlylinear/unival_video_caption_s2_onlylinear.sh"))
    frozen = ("encoder", "decoder", "image_encoder", "video_encoder", "audio_encoder")
    assert all(linear[f"freeze_{part}"] for part in frozen) and linear["use_dataaug"]
    assert (linear["patch_frame_size"], linear["num_frames"]) == (384, 16)

    audio = dataclasses_of(parsed("caption/audio/unival_audio_caption.sh"))
    assert (audio["audio_encoder_name"], audio["mel_bins"], audio["hop_size"]) == ("pann_cnn14", 64, 200)

    vqa = parsed("vqa/unival_vqa.sh")
    answers = from_namespace(vqa, SpecOptions)
    assert answers.prompt_type == "prev_output" and str(answers.ans2label_file).endswith(
        "trainval_ans2label.pkl"
    )
    assert from_namespace(vqa, TaskOptions).val_inference_type == "beamsearch"
    ema = convert_namespace_to_omegaconf(vqa).ema
    assert (ema.store_ema, ema.ema_decay, ema.ema_fp32, ema.ema_start_update) == (True, 0.9999, True, 0)

    stage1 = parsed("pretraining/unival_s1.sh")
    mix = from_namespace(stage1, MixtureOptions)
    assert (mix.image_text_cnt, mix.image_text_vqa_cnt, mix.image_text_ground_cnt) == (8, 1, 1)
    assert str(mix.image_text_data).endswith("cc12m.tsv")
    assert from_namespace(stage1, TaskOptions).selected_cols == "0,1,2,3,4,5,6,7"
    assert stage1.ddp_backend == "no_c10d" and stage1.disable_validation
    stage2 = from_namespace(parsed("pretraining/unival_s2.sh"), MixtureOptions)
    assert stage2.video_cnt == 1 and stage2.video_selected_cols == "0,1,2,3,4,5,6,7"


def test_rewarded_soups_arrive() -> None:
    from unival.rewards import BoxReward, GroundingOptions
    from unival.tasks.options import TaskOptions

    sizes = {
        "small": (30000, None, False),
        "medium": (30000, 100000, True),
        "large": (None, 100000, False),
        "smalllarge": (30000, 100000, False),
        "mediumsmall": (None, 100000, True),
        "mediumlarge": (30000, None, True),
    }
    for name, (below, above, medium) in sizes.items():
        args = parsed(f"refcoco/scst/unival_refcocoplus_acc0_5{name}_lreinf5.sh")
        reward = from_namespace(args, BoxReward)
        assert (reward.max_area_size, reward.min_area_size, reward.medium_area) == (below, above, medium)
        assert (reward.metric, reward.acc_thresh) == ("acc", 0.5)
        assert from_namespace(args, GroundingOptions).lambda_reinforce == 5.0
        task = from_namespace(args, TaskOptions)
        assert task.scst and task.scst_args == {"beam": 5, "min_len": 4, "max_len_a": 0, "max_len_b": 4}


def test_what_is_refused_says_what_to_use_instead() -> None:
    from unival.train import adapt, parse

    for script, args in TRAINING.items():
        with pytest.raises(ConfigError, match=r"--user-dir .* does not exist; leave it out"):
            parse(args)
        if script == BROKEN:
            with pytest.raises(ConfigError, match=r"unexpected word ' '.* no blank after it"):
                parse([word for word in args if not word.startswith("--user-dir")])
    base = without_plugin(TRAINING["caption/unival_caption_stage_1.sh"])
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"--fp16 needs a GPU .* Use --bf16"):
            adapt(parse(base))
    with pytest.raises(ConfigError, match="freeze_image_encoder"):
        dataclasses_of(parse([*base, "--freeze-perception"]))
    with pytest.raises(ConfigError, match="Did you mean"):
        parse([*base, "--drop-worst-ration=0.1"])


# evaluate.py and the other programs


@cache
def table() -> dict[str, tuple[str, list[str]]]:
    """Option of evaluate.py with underscores -> (condition, words of unival evaluate) as documented."""
    found = {}
    for left, right in cells("## Options of evaluate.py"):
        words = [] if right.startswith("nothing") else codes(right)
        names = [code.lstrip("-").replace("-", "_") for code in codes(left)]
        if left.startswith("without"):
            found[f"without_{names[0]}"] = ("", words)
            continue
        condition = names.pop() if left.endswith("with `--zero-shot`") else ""
        found |= {name: (condition, words) for name in names if name != "model_overrides"}
    return found


def overrides(text: str) -> Iterator[tuple[str, str | None]]:
    yield from ((name, None if value is False else str(value)) for name, value in parse_mapping(text).items())


def translate(args: list[str]) -> list[str]:
    """The arguments of ``unival evaluate`` for a command line of evaluate.py, by the documented table."""
    words, options = split(args)
    pairs: dict[str, str | None] = {}
    for name, value in options:
        pairs |= dict(overrides(value or "{}")) if name == "model_overrides" else {name: value}
    pairs.setdefault("data", words[0])
    if pairs["task"] in ("vqa_gen", "snli_ve") and not {"beam_search_vqa_eval", "noconstraints"} & set(pairs):
        pairs["without_beam_search_vqa_eval"] = None
    if "ema_eval" not in pairs:
        pairs["without_ema_eval"] = None
    places: dict[str, str] = {}
    result: list[str] = []
    decoding: dict[str, Any] = {}
    for name, value in pairs.items():
        condition, target = table()[name]  # KeyError: an option that the table leaves out
        if not target or (condition and condition not in pairs):
            continue
        if target[0] in ("CHECKPOINT", "TABLE"):
            places[target[0]] = value or ""
        elif target[0].startswith("--eval-args"):
            decoding |= dict.fromkeys(target[2:], True)
            decoding[target[1]] = True if value is None else float(value) if "." in value else int(value)
        elif " " in target[0] or value is None:
            result += target[0].split()
        else:
            result += [target[0], value]
    result += ["--eval-args", json.dumps(decoding)] if decoding else []
    return [places["CHECKPOINT"], places["TABLE"], *result]


EVALUATIONS = [(script, args) for script, program, args in COMMANDS if program == "evaluate.py"]


def test_evaluations_translate() -> None:
    from unival.cli.evaluate import parse
    from unival.generate import GenerationSettings

    assert len(EVALUATIONS) == 57
    for script, args in EVALUATIONS:
        ours = parse(translate(args))
        _, options = split(args)
        theirs = dict(options)
        changed = parse_mapping(theirs["model_overrides"] or "{}")
        assert ours.checkpoint == theirs["path"] and ours.table == changed["data"], script
        assert ours.task == theirs["task"] and ours.batch_size == int(theirs["batch_size"] or 0)
        assert ours.selected_cols == changed["selected_cols"] and ours.bpe_dir == changed["bpe_dir"]
        assert ours.precision == "float16" and ours.options.get("seed") == int(theirs["seed"] or 0)
        assert ours.weights == ("ema" if "ema_eval" in theirs else "raw")
        assert ours.zero_shot == ("zero_shot" in theirs)
        assert ours.options.get("prompt_type") == (
            theirs["prompt_type"] if ours.zero_shot and "prompt_type" in theirs else None
        )
        closed = {"beam_search_vqa_eval": "trie", "noconstraints": "open"}
        mode = next((mode for flag, mode in closed.items() if flag in theirs), None)
        if theirs["task"] in ("vqa_gen", "snli_ve"):
            mode = mode or "rank"
        assert ours.mode == mode, script
        settings = GenerationSettings.of(ours.eval_args)
        if "beam" in theirs:
            assert settings.beam == int(theirs["beam"] or 0)
        if "max_len_b" in theirs:
            assert settings.max_len_b == int(theirs["max_len_b"] or 0)


def test_thresholds_and_areas_are_for_score() -> None:
    from unival.cli.score import _numbers

    targets = dict(cells("## Options of evaluate.py"))
    assert "unival score" in targets["`--acc-thresh`, `--metric`, `--min-area-size`, `--max-area-size`"]
    for _, args in EVALUATIONS:
        text = dict(split(args)[1]).get("acc_thresh")
        if text:
            assert _numbers(text, "--thresholds") == (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_other_programs_have_a_counterpart() -> None:
    """The remaining 16 command lines: caption scores, image codes, image scores."""
    from unival.cli import DATA_VERBS, VERBS

    documented = {codes(left)[0]: codes(right) for left, right in cells("## Other programs")}
    others = [(program, args) for _, program, args in COMMANDS if program not in ("train.py", "evaluate.py")]
    assert len(others) == 16
    for program, args in others:
        words = documented[program]
        verb = words[0].split()
        assert verb[0] == "unival" and (verb[1] in VERBS or (verb[1] == "data" and verb[2] in DATA_VERBS)), (
            words
        )
        for name, _ in split(args)[1]:
            assert any(name.replace("_", "-") in code.replace("_", "-") for code in words[1:]), (
                program,
                name,
            )


def test_every_script_has_a_counterpart() -> None:
    """docs/experiments.md maps all 74 scripts to scripts and recipes that exist."""
    root = DOCS.parents[1]
    found = {codes(left)[0]: codes(right) for left, right in cells("## The reference's scripts")}
    assert set(found) == set(SCRIPTS)
    for script, targets in found.items():
        assert targets, script
        for target in targets:
            for word in target.split():
                if word.startswith(("run_scripts/", "configs/")):
                    assert (root / word).is_file(), (script, word)
