"""Chains: their steps, their state, and a short one with real trainings."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.forks import forks
from tests.support.merge_models import SMALL, folder_of, make_model
from unival.checkpoint import read_header
from unival.cli import main
from unival.errors import ConfigError, UnivalError
from unival.evaluate import file_hash
from unival.merge.chain import ChainRecipe, is_done, run_step, steps
from unival.merge.recipe import MergeRecipe

ROOT = Path(__file__).resolve().parents[3]
TASKS = {"caption": "c.yaml", "vqa": "v.yaml", "grounding": "g.yaml", "entailment": "e.yaml"}


def chain(tmp_path, **changes) -> ChainRecipe:
    return ChainRecipe(**{"out": str(tmp_path / "out"), "start": "start.pt", "tasks": TASKS, **changes})


def test_steps_of_the_three_kinds(tmp_path):
    listed = steps(chain(tmp_path))
    trainings = [s for s in listed if isinstance(s.work, list)]
    merges = {s.name: s for s in listed if isinstance(s.work, MergeRecipe)}
    assert len([s for s in trainings if "/fusing/" not in s.name]) == 16, "N x N finetunings"
    assert len(trainings) == 20 and len(merges) == 7
    done: set[str] = set()
    for step in listed:
        assert done.issuperset(step.needs), step.name
        done.add(step.name)
    assert [s.stage for s in listed] == sorted(s.stage for s in listed), "one range of numbers per stage"
    by_name = {s.name: s for s in listed}
    again = by_name["seed1/ratatouille/vqa-from-caption"]
    start = f"--finetune-from-model={tmp_path}/out/seed1/finetuned/caption/checkpoint_best.pt"
    assert again.needs == ("seed1/finetuned/caption",) and start in again.work and "v.yaml" in again.work
    fused = by_name["seed1/fusing/vqa"]
    assert f"--finetune-from-model={tmp_path}/out/seed1/merged/vanilla" in fused.work
    assert len(merges["seed1/merged/ratatouille"].work.models) == 16
    names = [m.name for m in merges["seed1/merged/ratatouille-vqa"].work.models]
    assert names[0] == "finetuned-vqa" and len(names) == 4
    auxiliary = {s.name: s for s in steps(chain(tmp_path, fused="auxiliary", kinds=["fusing"]))}
    assert "seed1/merged/vanilla" not in auxiliary
    assert auxiliary["seed1/fusing/vqa"].needs == ("seed1/merged/without-vqa",)
    assert len(auxiliary["seed1/merged/without-vqa"].work.models) == 3
    assert len(steps(chain(tmp_path, kinds=["vanilla"], seeds=[1, 2, 3]))) == 15


def test_options_and_launcher(tmp_path):
    tasks = {"a": {"recipe": "a.yaml", "options": {"lr": 0.1, "eval_args": {"beam": 1}}}, "b": "b.yaml"}
    options = {"lr": 0.5, "disable_validation": True, "fp16": False}
    launcher = "bash run_scripts/_launch.sh"
    listed = steps(
        chain(tmp_path, tasks=tasks, options=options, launcher=launcher, kinds=["vanilla"], seeds=[4])
    )
    first, second = (s.work for s in listed if isinstance(s.work, list))
    assert first[:4] == ["bash", "run_scripts/_launch.sh", "train", "a.yaml"]
    assert {"--lr=0.1", '--eval-args={"beam": 1}', "--disable-validation", "--no-fp16", "--seed=4"} <= set(
        first
    )
    assert "--lr=0.5" in second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["fusion"]}, "Did you mean 'fusing'"),
        ({"tasks": {"a": "a.yaml"}}, "at least two"),
        ({"tasks": {"a": {"recip": "a.yaml"}, "b": "b.yaml"}}, "Did you mean 'recipe'"),
        ({"tasks": {"a/b": "a.yaml", "c": "b.yaml"}}, "leave out '/'"),
        ({"seeds": [1, 1]}, "none twice"),
        ({"fused": "some"}, "all, auxiliary"),
    ],
)
def test_chains_that_cannot_be_meant(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        chain(tmp_path, **changes)


def test_a_step_waits_for_those_it_needs(tmp_path):
    recipe = chain(tmp_path)
    listed = steps(recipe)
    average = next(s for s in listed if s.name == "seed1/merged/vanilla")
    with pytest.raises(ConfigError, match="needs seed1/finetuned/caption, "):
        run_step(recipe, average)
    (tmp_path / "out/seed1/finetuned").mkdir(parents=True)
    (tmp_path / "out/seed1/finetuned/caption.done").write_text(json.dumps(listed[0].identity))
    assert is_done(recipe, listed[0])
    other = chain(tmp_path, options={"lr": 0.1})
    with pytest.raises(ConfigError, match="other settings"):
        is_done(other, steps(other)[0])


def test_a_failed_training_shows_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = chain(tmp_path, tasks={"a": str(tmp_path / "absent.yaml"), "b": "b.yaml"})
    with pytest.raises(
        UnivalError, match=r"'seed1/finetuned/a' failed with exit code 2[\s\S]*absent.yaml' does not exist"
    ):
        run_step(recipe, steps(recipe)[0])
    assert not is_done(recipe, steps(recipe)[0])


@pytest.mark.slow
def test_a_short_chain(world, vocabulary, tmp_path, monkeypatch, capsys):
    """Two tasks, two updates each, then their average; the files say what they descend from."""
    pytest.importorskip("fairseq")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    start = folder_of(tmp_path / "start", make_model(vocabulary, 0), vocabulary)
    common = {
        "arch": "unival_tiny",
        "criterion": "adjust_label_smoothed_cross_entropy",
        "optimizer": "adam",
        "model": SMALL,
        "inputs": {
            "bpe_dir": str(world / "vocabulary"), "image_dir": str(world), "patch_image_size": 32, "max_image_size": 32,
            "max_src_length": 20, "max_tgt_length": 12,
        },
        "optimization": {"lr": 1e-3, "batch_size": 4},
        "checkpoint": {"save_dir": str(tmp_path / "unused"), "finetune_from_model": str(start)},
        "run": {"num_workers": 0, "log_format": "simple", "disable_validation": True},
    }  # fmt: skip
    tasks = {}
    for name in ("caption", "grounding"):
        tasks[name] = str(tmp_path / f"{name}.yaml")
        data = {"train": str(world / f"tables/{name}_train.tsv")}
        task = {"caption": "caption", "grounding": "refcoco"}[name]
        Path(tasks[name]).write_text(yaml.safe_dump({**common, "task": task, "data": data}))
    content = {
        "out": str(tmp_path / "out"), "start": str(start), "tasks": tasks, "kinds": ["vanilla"],
        "checkpoint": "checkpoint_last.pt", "options": {"max_update": 2}, "launcher": shlex.join(forks().program),
    }  # fmt: skip
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump(content))
    assert main(["merge", "chain", str(file), "--stages"]) == 0
    assert capsys.readouterr().out.split() == ["0-1", "2-2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*forks().program, "merge", "chain", str(file)]
    running = [subprocess.Popen([*command, "--step", str(k)], env=env, cwd=ROOT) for k in (0, 1)]
    assert [process.wait() for process in running] == [0, 0]
    assert main(["merge", "chain", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.count("done before") == 2 and "warning" not in out
    trained = [tmp_path / f"out/seed1/finetuned/{name}/checkpoint_last.pt" for name in tasks]
    lineages = [read_header(path)["task_state"]["unival"]["lineage"] for path in trained]
    assert lineages == [[file_hash(start)]] * 2
    meta = json.loads((tmp_path / "out/seed1/merged/vanilla/config.json").read_text())
    assert meta["lineage"] == [file_hash(start), *map(file_hash, trained)]
    assert main(["merge", "chain", str(file), "--list"]) == 0
    assert capsys.readouterr().out.count(" done ") == 3
