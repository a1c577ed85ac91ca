"""Every recipe resolves into arguments that its program accepts; every run script says what it would run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.needs import skip_without
from tests.support.recipe_lists import CONFIGS, MERGES, ROOT, TRAINING, content
from unival.core.options import from_namespace, given
from unival.core.recipe import load_recipe, to_arguments
from unival.errors import ConfigError
from unival.modeling.config import BY_IMAGE_NETWORK, PARTS, ModelConfig
from unival.specs import SpecOptions

skip_without("fairseq")
SCRIPTS = sorted(
    p.relative_to(ROOT).as_posix() for p in (ROOT / "run_scripts").glob("*/*.sh") if p.parent.name != "merge"
)


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    for name in ("DATA", "OUT", "WEIGHTS"):
        monkeypatch.setenv(f"UNIVAL_{name}", str(tmp_path / name.lower()))
    for name, value in {"SEED": "1", "FIRST": "caption", "SECOND": "vqa"}.items():
        monkeypatch.setenv(name, value)  # what recipes of merges leave open


@cache
def flags(choices: tuple[tuple[str, str], ...]) -> set[str]:
    from unival.train import known_options

    return known_options(dict(choices))


@pytest.mark.parametrize("name", TRAINING)
def test_recipe_is_accepted(name, tmp_path):
    from unival.tasks.options import TaskOptions
    from unival.train import parse

    recipe = load_recipe(CONFIGS / name)
    args = parse(to_arguments(recipe, flags(tuple(recipe.choices.items()))))
    assert args.task == recipe.choices["task"] and args.arch == recipe.choices["arch"]
    assert Path(args.save_dir).is_relative_to(tmp_path), "outputs go below UNIVAL_OUT"
    assert args.max_update or args.max_epoch, "a run has an end"
    from_namespace(args, TaskOptions)
    from_namespace(args, SpecOptions)  # names of prompts, ranges of values
    options = {name: value for part in PARTS.values() for name, value in given(args, part).items()}
    ModelConfig.from_options(args.arch, 59457, **options)
    for name, value in recipe.options.items():
        if value is not None:
            assert hasattr(args, name.replace("-", "_")), name
        if isinstance(value, bool) and value:
            assert getattr(args, name) is True, name


def test_sources_are_taken_from_an_inherited_mixture(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("mixture: [{name: captions, table: a.tsv}, {name: questions, table: b.tsv}]\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nsources: [questions]\n")
    assert [entry["name"] for entry in load_recipe(child).mixture] == ["questions"]
    child.write_text("extends: base.yaml\nsources: [question]\n")
    with pytest.raises(ConfigError, match=r"'question', which the mixture has not. Did you mean 'questions'"):
        load_recipe(child)


def test_null_takes_an_inherited_option_back(tmp_path):
    (tmp_path / "base.yaml").write_text("data: {train: a.tsv, valid: b.tsv}\nloss: {log_end: 0.5}\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nloss: {log_end: null}\ncheckpoint: {save_dir: out}\n")
    assert to_arguments(load_recipe(child), {"--save-dir"}) == ["a.tsv,b.tsv", "--save-dir=out"]


def test_no_two_recipes_write_into_one_folder():
    folders: dict[str, str] = {}
    for name in TRAINING:
        folder = str(load_recipe(CONFIGS / name).options["save_dir"])
        assert folder not in folders, (name, folders[folder])
        folders[folder] = name


@pytest.mark.parametrize("name", MERGES)
def test_merge_recipe_is_read(name):
    from unival.merge.chain import ChainRecipe, steps
    from unival.merge.recipe import MergeRecipe, read_document
    from unival.merge.sweep import SweepRecipe

    keys = content(CONFIGS / name)
    if "tasks" in keys:
        assert steps(read_document(CONFIGS / name, ChainRecipe))
        for task in keys["tasks"].values():
            assert (ROOT / (task if isinstance(task, str) else task["recipe"])).is_file(), task
    else:
        read_document(CONFIGS / name, SweepRecipe if {"grid", "evaluations"} & set(keys) else MergeRecipe)


def made_by(chain: str) -> set[str]:
    """Checkpoints that a chain leaves."""
    from unival.merge.chain import ChainRecipe, steps
    from unival.merge.recipe import read_document

    recipe = read_document(CONFIGS / chain, ChainRecipe)
    names = [step.name for step in steps(recipe)]
    return {f"{recipe.out}/{name}" + "/checkpoint_best.pt" * ("/merged/" not in name) for name in names}


@pytest.mark.parametrize("first", ["caption", "refcocoplus", "snli_ve", "vqa"])
def test_sweeps_read_what_the_chains_make(first, monkeypatch):
    """Figures 2, 3 and 6 and table 20: every model has a step that makes it, every table a recipe."""
    from unival.merge.recipe import read_document
    from unival.merge.sweep import SweepRecipe

    monkeypatch.setenv("FIRST", first)
    monkeypatch.setenv("SECOND", "vqa" if first != "vqa" else "caption")
    chains = [n for n in MERGES if n.startswith("merge/") and "tasks" in content(CONFIGS / n)]
    made = set().union(*(made_by(chain) for chain in chains))
    sweeps = [n for n in MERGES if n.startswith("merge/") and "evaluations" in content(CONFIGS / n)]
    assert len(sweeps) >= 9
    for name in sweeps:
        recipe = read_document(CONFIGS / name, SweepRecipe)
        for evaluation in recipe.evaluations:
            assert (ROOT / evaluation.recipe).is_file(), (name, evaluation)
        if name != "merge/sweep.yaml":  # of single finetunings
            models = [model.path for model in recipe.merge.models] if recipe.merge else []
            assert {*models, *recipe.also.values()} <= made, name


def dry_run(path: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DRY_RUN": "1", "GPUS": "1"}
    command = ["bash", str(ROOT / path), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("path", SCRIPTS)
def test_run_script_says_what_it_would_run(path, tmp_path):
    from unival.cli import VERBS
    from unival.cli.evaluate import parse

    words = ["b"] if path.endswith("ablation.sh") else []
    words = ["CHECKPOINT", "TABLE"][: 1 + path.endswith("/evaluate.sh")] if "evaluate/" in path else words
    done = dry_run(path, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert commands
    for command in commands:
        assert command[1:3] == ["-m", "unival"] and command[3] in VERBS, command
        for word in command:
            if "configs/" in word:
                assert (ROOT / word[word.index("configs/") :]).is_file(), word
        if command[3] == "evaluate":
            parse(command[4:])
        if command[3] == "train":
            name = command[4].removeprefix("configs/")
            assert name in TRAINING, "run by the tests of recipes"
    assert len((ROOT / path).read_text().splitlines()) <= 12


def test_merge_script_lists_the_chain(tmp_path):
    done = dry_run(
        "run_scripts/merge/merge.sh", "chain", "configs/merge/ratatouille.yaml", "--list", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    trainings = [line for line in done.stdout.splitlines() if "configs/finetune/" in line]
    assert len(trainings) == 4 + 4 + 12


def test_chain_as_slurm_arrays(tmp_path):
    """A stand-in for sbatch: one array per stage, together all steps, each waiting for the one before."""
    stand_in = tmp_path / "bin/sbatch"
    stand_in.parent.mkdir()
    calls = tmp_path / "calls"
    lines = ["#!/bin/bash", f'echo "$*" >> {calls}', f'echo "$((100 + $(wc -l < {calls})));cluster"', ""]
    stand_in.write_text("\n".join(lines))
    stand_in.chmod(0o755)
    recipe = "configs/merge/ratatouille.yaml"
    done = subprocess.run(
        ["bash", str(ROOT / "run_scripts/merge/chain_slurm.sh"), recipe, "--gpus-per-node=8"],
        env={**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "UNIVAL_OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    steps: list[int] = []
    for number, call in enumerate(calls.read_text().splitlines()):
        first, last = map(int, re.search(r"--array=(\d+)-(\d+)", call).groups())
        steps += range(first, last + 1)
        assert "--gpus-per-node=8" in call and f"merge chain {recipe} --step $SLURM_ARRAY_TASK_ID" in call
        assert (f"--dependency=afterok:{100 + number}" in call) == (number > 0), call
    listed = dry_run("run_scripts/merge/merge.sh", "chain", recipe, "--list", cwd=tmp_path)
    assert len(steps) == len(set(steps)) == 20 + 7, listed.stdout
    assert number > 1


def test_every_recipe_of_the_paper_has_a_script():
    started = {word for path in SCRIPTS for word in (ROOT / path).read_text().split() if "configs/" in word}
    for folder in ("pretrain", "finetune", "linear", "scst", "evaluate"):
        for recipe in (CONFIGS / folder).glob("*.yaml"):
            if recipe.stem.startswith("base") or "domain" in recipe.stem:  # domains: one script for all
                continue
            assert f"configs/{folder}/{recipe.name}" in started, recipe


def test_experiments_name_what_exists():
    text = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?:run_scripts|configs)/[\w/]+\.(?:sh|yaml)", text):
        if "NAME" not in path and "/X." not in path:
            assert (ROOT / path).is_file(), path
    ablations = {name for name in TRAINING if name.startswith("ablation/")}
    table = text.split("| paper | NAME | expected |")[1].split("\n\n")[0]
    named = {f"ablation/{word}.yaml" for word in re.findall(r"`(\w+)`", table)}
    assert named == ablations
    for page in re.findall(r"\]\((\w[\w-]*\.md)", text):
        assert (ROOT / "docs" / page).is_file(), page


def test_no_path_of_a_machine():
    for path in [*CONFIGS.rglob("*.yaml"), *(ROOT / "run_scripts").rglob("*.sh")]:
        for line in path.read_text().splitlines():
            text = line.split("#!")[0]
            assert not any(
                f"{start}/" in text for start in (" /home", " /root", " /work", '"/tmp', " /data")
            ), (path, line)


def test_ablations_mix_as_the_paper():
    """VQAv2 without Visual Genome's questions, all boxes, and CC12M at an eighth of the captions, as in stage 1."""
    from unival.batching.mixture import Source, quotas

    listed = {entry["name"]: entry for entry in load_recipe(CONFIGS / "ablation/base.yaml").mixture}
    assert "vqa_vg" not in listed["vqa_v2"]["table"]["where"]["dataset"]
    assert isinstance(listed["grounding"]["table"], str) and isinstance(listed["questions"]["table"], str)
    stage1 = {
        entry["name"]: entry["weight"] for entry in load_recipe(CONFIGS / "pretrain/stage1.yaml").mixture
    }
    weights = {
        entry["name"]: entry.get("weight", 1.0)
        for entry in load_recipe(CONFIGS / "ablation/b_vqa_ground_cc12m.yaml").mixture
    }
    assert weights == stage1
    mixed = [Source(name, 1000, weight, "image") for name, weight in weights.items()]
    shares = {
        s.name: q.update / 100 for s, q in zip(mixed, quotas(mixed, 100, "balanced", None, 1, 1), strict=True)
    }
    assert shares["cc12m"] == pytest.approx(0.125 / 3.125) and shares["captions"] == pytest.approx(1 / 3.125)


def test_merging_without_torch_says_so():
    """The scripts of merging fall back to the system's Python, which may have nothing installed."""
    code = (
        "import sys; sys.modules['torch'] = None; from unival.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["merge", "chain", str(CONFIGS / "merge/ratatouille.yaml"), "--stages"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "'torch' is missing" in done.stderr


RELEASED = {
    "unival_s1": {"image"},
    "unival_s2_hs": {"image", "video"},
}  # all others are finetuned from the second
BACKBONES = {
    "resnet_model_path": "image",
    "image_backbone_weights": "image",
    "video_model_path": "video",
    "audio_model_path": "audio",
}


def held(recipe) -> set[str]:
    """Modalities of the rows that a recipe trains on."""
    if recipe.mixture:
        texts = all(source.get("task") == "infilling" for source in recipe.mixture)
        named = {source.get("name", "").split("_")[0].rstrip("s") for source in recipe.mixture}
        alone = named == {"video"}  # captions and questions of videos
        video = {"video"} if recipe.options.get("video_encoder_name") else set()
        return set() if texts else video if alone else {"image"} | video
    if recipe.choices["task"] == "image_gen":
        return set()
    first = recipe.choices["task"].split("_")[0]
    shared = recipe.options.get(f"{first}_encoder_name") == BY_IMAGE_NETWORK.get(first, "")
    return {first if first in ("video", "audio") and not shared else "image"}


def test_networks_of_every_recipe_come_from_a_file():
    """From its start, from a file of the network alone, or the recipe says that they are trained from scratch."""
    recipes = {name: load_recipe(CONFIGS / name) for name in TRAINING}
    makers = {str(recipe.options["save_dir"]): name for name, recipe in recipes.items()}

    def networks(name: str) -> set[str]:
        """Networks in the checkpoint that a recipe leaves."""
        recipe = recipes[name]
        given = {m for option, m in BACKBONES.items() if recipe.options.get(option)}
        return held(recipe) | given | start(recipe)

    def start(recipe) -> set[str]:
        path = recipe.options.get("finetune_from_model")
        if not path:
            return set()
        folder = Path(path).parent
        maker = makers.get(str(folder))
        return networks(maker) if maker else RELEASED.get(folder.name, RELEASED["unival_s2_hs"])

    # what the miniature experiments give on their command line
    started = {"experiments/finetune_caption.yaml", "experiments/finetune_video_caption.yaml"}
    for name, recipe in recipes.items():
        given = {m for option, m in BACKBONES.items() if recipe.options.get(option)}
        lacking = held(recipe) - given - start(recipe)
        if name not in started:
            assert not lacking or recipe.options.get("networks_from_scratch"), (name, lacking)
        if name.split("/")[0] not in ("tiny", "own_data", "experiments", "evaluate"):
            assert not recipe.options.get("networks_from_scratch"), name
