"""What recipes come to when every default has been applied, against what the scripts come to in the reference.

`test_script_recipes` compares what is written down. Here both sides are complete: defaults of the task descriptions,
of generation and of the engine on ours, the reference's own defaults on the scripts' side.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.plugin.test_script_args import dataclasses_of
from tests.integration.plugin.test_script_recipes import DIFFERENT, NOT_COMPARED, chain, flags, recipes
from tests.support.needs import skip_without
from tests.support.script_lines import COMMANDS, ROOT, TRAINING, cells, codes, split, without_plugin
from unival.core.options import parse_mapping
from unival.core.recipe import load_recipe, to_arguments
from unival.evaluate.recipe import read_recipe
from unival.generate import GenerationSettings
from unival.specs import SpecOptions, get_spec

skip_without("fairseq")

# Options that training recipes and scripts effectively have with other values, and what says so; those of single
# recipes stand in test_script_recipes.
SAID = {
    "bf16": "bf16: true  # the reference trains in fp16",
    "seed": "seed: 7  # the scripts leave the engine's 1",
    "only_linear_proj": "--no-only-linear-proj",
    "prompts": "asks \"what does the video describe?\" of sounds",
    "keep_best_checkpoints": "scripts: keep_last_epochs 15",
    "no_epoch_checkpoints": "scripts: keep_last_epochs 15",
    "keep_interval_updates": "script: 100, of which every second is validated",
    "max_update": "# paper",
    "total_num_update": "script: the rate decays over 50 epochs",
    **{f"freeze_{part}": "--freeze-encoder" for part in
       ("encoder", "decoder", "image_encoder", "video_encoder", "audio_encoder")},
}  # fmt: skip
START = {"finetune_from_model", "init_from", "networks_from_scratch"}  # the scripts' restore_file
UNUSED = {
    "batch_size_valid",  # equal to batch_size where nothing is validated
    "fixed_validation_seed",  # of stages that validate nothing
    "tpu",  # what the engine makes of bf16, undone in unival.train
    "max_tgt_length",  # of text-to-image: codes have their own length
    "patch_image_size",  # of sounds, and so on: media that a task has not; sizes of its own are compared
    "patch_frame_size",
    "num_frames",
}
OWN_SIZES = {
    "image": {"patch_image_size"},
    "video": {"patch_frame_size", "num_frames"},
    "audio": {"sample_rate", "max_audio_len"},
}

# Options that no script names: the value that every recipe has, as the reference computes without them.
UNNAMED: dict[str, Any] = {
    # model
    "activation_fn": "gelu", "adapter": False, "add_mm_type_embedding": False, "attn_scale_factor": 2.0,
    "bitfit": False, "checkpoint_activations": False, "decoder_attention_heads": 12, "decoder_embed_dim": 768,
    "decoder_ffn_embed_dim": 3072, "decoder_layers": 6, "decoder_prompt": False, "encoder_attention_heads": 12,
    "encoder_embed_dim": 768, "encoder_eval": False, "encoder_ffn_embed_dim": 3072, "encoder_layers": 6,
    "encoder_prompt": False, "entangle_position_embedding": False, "freeze_batchnorm": False,
    "freeze_resnet_video": False, "image_bucket_size": 42, "interpolate_position": False,
    "layernorm_audio_embedding": False, "layernorm_image_embedding": False, "layernorm_video_embedding": False,
    "mel_bank": "file", "no_scale_embedding": True, "orig_patch_image_size": 256, "qk_norm": False, "relu_dropout": 0.0,
    "sample_audio_patch_num": None, "sample_patches_in_eval": False, "sample_video_patch_num": None,
    "scale_resids": False, "second_image": False, "sync_bn": False, "token_bucket_size": 256, "unfreeze": False,
    # loss
    "encouraging": False, "ignore_eos": False, "ignore_prefix_size": 0, "report_accuracy": False, "sentence_avg": False,
    "use_rdrop": False, "reg_alpha": 1.0,
    # inputs; what differs in evaluation from the reference stands in docs/differences.md
    "add_caption": False, "add_object": False, "code_dict_size": 8192, "eval_audio_crop": "centre",
    "eval_sample_type": "middle", "frame_resize": "none", "imagenet_default_mean_and_std": False, "matching_prob": 1.0,
    "max_audio_len": 480000, "max_source_positions": 1024, "max_target_positions": 1024, "neg_captions_video": None,
    "neg_captions_audio": None, "no_image_transform": False, "protocol": "unival", "sample_rate": 48000,
    "resize_backend": "pillow", "sample_type": "rand", "video_flip": True,
    # text-to-image
    "clip_architecture": "ViT-B-16-quickgelu", "eval_clip_method": "ti_sim", "sampling_times": 1,
    # run
    "eval_generate": True,
}  # fmt: skip
# Options that no script names and that cannot move a number of the paper.
APART = re.compile(
    r"adapter_|(en|de)coder_prompt_|ans2label_dict$|answers$|data$|modality$|prompts$|seed$|init_|only_linear_proj$|eval_bleu$|"
    r"eval_print|fid_|inception_|keep_ratio$|mask_|poisson|random_ratio$|replace_length$|max_broken|max_nonfinite|"
    r"preflight|networks_from_scratch$|lora|image_backbone|video_frame_positions$"
)


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "OUT", "WEIGHTS"):
        monkeypatch.setenv(f"UNIVAL_{name}", str(tmp_path / name.lower()))


def complete(args: Any) -> dict[str, Any]:
    """Every option of a run with its value in effect."""
    return {**vars(args), **dataclasses_of(args)}


def arguments(name: str) -> Any:
    from unival.train import parse

    recipe = load_recipe(ROOT / f"configs/{name}.yaml")
    return parse(to_arguments(recipe, flags(tuple(recipe.choices.items()))))


def searched(settings: Any, defaults: dict[str, Any]) -> dict[str, Any]:
    """Decoding in effect: ``defaults`` below what is given, the engine's below both."""
    return dataclasses.asdict(GenerationSettings.of({**defaults, **(settings or {})}))


# the reference's tasks make code sampling of these, from options that are not decoding settings there
DRAWN = {"sampling": True, "gen_code": True}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_training_in_effect(name: str) -> None:
    from fairseq.tasks import TASK_REGISTRY

    from unival.tasks.finetune import UnivalTask  # noqa: F401  (registers)
    from unival.train import parse

    args = arguments(name)
    ours, theirs = complete(args), complete(parse(without_plugin(TRAINING[recipes()[name]])))
    said = " ".join(chain(ROOT / f"configs/{name}.yaml").split())
    task = TASK_REGISTRY[args.task]
    spec = get_spec(task.spec_name, task.modality)
    sizes = (
        OWN_SIZES[spec.modality]
        if not load_recipe(ROOT / f"configs/{name}.yaml").mixture
        else set().union(*OWN_SIZES.values())
    )
    options = SpecOptions.from_options(**{f.name: ours[f.name] for f in dataclasses.fields(SpecOptions)})
    for option in sorted({*ours, *theirs} - NOT_COMPARED - START - {"eval_args", "scst_args"}):
        if option in UNUSED and not (spec.reads_media and option in sizes):
            continue
        if re.fullmatch(r"(image_text|video|audio)\w*_(data|cnt|selected_cols)", option):
            continue
        pair = (ours.get(option), theirs.get(option))
        if pair[0] != pair[1] and DIFFERENT.get(name, {}).get(option, (None, None))[:2] != pair:
            assert option in SAID and " ".join(SAID[option].split()) in said, (
                f"{option}: {pair[0]!r}, script {pair[1]!r}"
            )
    for option in ("eval_args", "scst_args"):
        drawn = DRAWN if args.task == "image_gen" else {}
        if theirs[option] is not None:
            assert searched(ours[option], spec.decoding(options)) == searched(theirs[option], drawn), option


def test_options_that_no_script_names() -> None:
    """A new option of model, loss or data, or another default of one, needs a line here."""
    from unival.tasks.options import TaskOptions

    named = {option for words in TRAINING.values() for option, _ in split(without_plugin(words))[1]}
    run = {f.name for f in dataclasses.fields(TaskOptions)}  # how a run is watched, stopped, logged
    unknown, other = set(), {}
    for name in sorted(recipes()):
        ours = {
            option: value for option, value in dataclasses_of(arguments(name)).items() if option not in named
        }
        unknown |= {o for o in ours if o not in UNNAMED and o not in run and not APART.match(o)}
        # networks that a task does not build have no options
        other |= {(name, o): ours[o] for o, value in UNNAMED.items() if o in ours and ours[o] != value}
    assert not unknown, "options that no script names: what has the reference in their place?"
    assert not other


# evaluate.py

EVALUATIONS = [(script, args) for script, program, args in COMMANDS if program == "evaluate.py"]
TRAINED_AS = {  # training recipe whose checkpoints a task's evaluation without --zero-shot takes its settings from
    "caption": "finetune/caption_coco",
    "refcoco": "finetune/refcoco",
    "snli_ve": "finetune/snli_ve",
    "vqa_gen": "finetune/vqa_v2",
    "video_vqa_gen": "finetune/video_vqa_msrvtt",
    "image_gen": "finetune/image_gen_stage1",
}
NOT_COPIED = {
    # The script's second command forgets the size and takes the default of 224 pixels for models of 480.
    ("snli_ve/eval/eval_snli_ve.sh", "snli_ve_test.tsv"): {"patch_image_size"},
}


def evaluation_recipe(script: str, table: str) -> str:
    """The recipe of configs/evaluate that stands for a command line of a script."""
    targets = next(
        codes(right) for left, right in cells("## The reference's scripts") if codes(left)[0] == script
    )
    named = [word for target in targets for word in re.findall(r"configs/evaluate/([\w/]+)\.yaml", target)]
    for word in re.findall(r"run_scripts/evaluate/\w+\.sh", " ".join(targets)):
        named += re.findall(r"configs/evaluate/(\w+)\.yaml", (ROOT / word).read_text())
    exact = [
        n
        for n in named
        if str(load_recipe(ROOT / f"configs/evaluate/{n}.yaml").data["valid"]).endswith(table)
    ]
    return (exact or named)[0]


@pytest.mark.parametrize(("script", "args"), EVALUATIONS, ids=[s for s, _ in EVALUATIONS])
def test_evaluation_in_effect(script: str, args: list[str]) -> None:
    theirs = dict(split(args)[1])
    theirs |= parse_mapping(theirs["model_overrides"] or "{}")
    task, table = str(theirs["task"]), str(theirs["data"]).rsplit("/", 1)[-1]
    name = evaluation_recipe(script, table)
    recipe = read_recipe(ROOT / f"configs/evaluate/{name}.yaml")
    options = SpecOptions.from_options(**recipe.options)
    spec = get_spec(str(recipe.task), recipe.modality)
    trained = complete(arguments(TRAINED_AS[task]))

    def setting(option: str) -> Any:
        """What the reference uses: its command line counts with --zero-shot alone, else the checkpoint's."""
        given = theirs.get(option) if "zero_shot" in theirs else None
        return trained[option] if given is None else type(trained[option])(given)

    wanted = {
        option: setting(option) for option in ("prompt_type", "max_src_length", *OWN_SIZES[spec.modality])
    }
    if task == "refcoco":
        wanted["max_image_size"] = trained["max_image_size"]
    found = {option: getattr(options, option) for option in wanted}
    if not spec.reads_media:
        wanted = found = {}
    for option in NOT_COPIED.get((script, table), ()):
        wanted.pop(option)
        found.pop(option)
    assert found == wanted
    assert recipe.extra["selected_cols"] == theirs["selected_cols"]
    assert str(recipe.table).split("/")[-2] == str(theirs["data"]).split("/")[-2]
    if "ans2label_file" in theirs:
        assert Path(str(options.ans2label_file)).name == Path(str(theirs["ans2label_file"])).name
    mode = {"refcoco": "open", "snli_ve": "allcand"}.get(task, "beamsearch")
    assert (recipe.extra.get("val_inference_type") or spec.inference) == mode
    # none: averaged weights where the file has them, as released files of video questions do and averages do not
    raw = recipe.extra.get("uses_ema")
    assert raw is None if script.startswith("vqa/eval/video/") else raw is ("ema_eval" in theirs)
    if mode == "allcand":
        return
    flag = {"unnormalized"} & set(theirs)
    kinds = {f.name: f.type for f in dataclasses.fields(GenerationSettings)}
    given = {n: float(v) if kinds[n] == "float" else int(v) for n, v in theirs.items()
             if n in kinds and n not in ("unnormalized", "zero_shot", "constraint_range", "seed")}  # fmt: skip
    given |= dict.fromkeys(flag, True)
    if task == "image_gen":
        assert "script: beam 16" in chain(ROOT / f"configs/evaluate/{name}.yaml")
        given |= {"beam": 24, "seed": int(str(theirs["seed"])), **DRAWN}
    assert searched(recipe.extra.get("eval_args"), spec.decoding(options)) == searched(given, {})
