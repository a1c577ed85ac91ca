"""The list of released checkpoints, the recipes it names, and the stand-in from nothing to a verdict."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.evaluate_models import unival
from unival.cli import main
from unival.errors import ConfigError
from unival.evaluate.recipe import REFERENCE_TASKS, read_recipe, resolve_task
from unival.evaluate.reproduce import Entry, Target, find_entry, judge, read_entries
from unival.generate import GenerationSettings
from unival.metrics.caption import METRICS
from unival.specs import SpecOptions, get_spec

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = read_entries()
RELEASED = [name for name, entry in ENTRIES.items() if entry.recipe and not entry.make]
# what the inventory of the reference lists as released
PUBLISHED = {
    "unival_s1",
    "unival_s2_hs",
    "bart.base",
    "unival_caption_stage_1",
    "unival_refcoco",
    "unival_refcocoplus",
    "unival_refcocog",
    "unival_vqa",
    "unival_snli_ve",
    "unival_video_caption_stage_1",
    "unival_video_caption_activitynet_stage_1",
    "unival_video_vqa",
    "unival_video_vqa_msvd",
    "unival_audio_caption",
    "unival_audio_caption_clotho",
}
EVALUATION = sorted(p for p in (ROOT / "configs/evaluate").glob("*.yaml") if p.name != "base.yaml")
FINETUNING = sorted((ROOT / "configs/finetune").glob("*.yaml"))


def test_every_released_checkpoint_is_listed() -> None:
    assert set(ENTRIES) >= PUBLISHED


@pytest.mark.parametrize("path", EVALUATION + FINETUNING, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_can_be_evaluated(path: Path) -> None:
    try:
        recipe = read_recipe(path)
    except ConfigError as error:
        assert "lists" in str(error) or "unknown task" in str(error)  # image generation
        return
    assert recipe.task is not None and recipe.table is not None
    spec = get_spec(recipe.task, recipe.modality or "image")
    options = SpecOptions.from_options(**recipe.options)
    GenerationSettings.of({**spec.generation, **recipe.extra.get("eval_args", {})})
    assert spec.layout is not None and spec.layout.positions(recipe.extra.get("selected_cols"))
    assert options.patch_image_size >= 384


@pytest.mark.parametrize("name", RELEASED)
def test_released_entries_name_their_files(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ENTRIES[name].results:
        assert main(["reproduce", name, "--split", target.split, "--files"]) == 0
        printed = capsys.readouterr().out
        assert "(checkpoint)" in printed and "(table)" in printed and "(vocabulary)" in printed
        assert ("not known yet" in printed) == (ENTRIES[name].sha256 is None)
        spec = get_spec(*[part or "image" for part in (read_recipe(ENTRIES[name].recipe_path()).task, None)])
        caption = any((target.metric or "").startswith(m) for m in METRICS)
        assert caption or target.metric == spec.best_metric
        assert (target.expected is None) == (target.tolerance is None) and target.source


def test_absent_files_and_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNIVAL_WEIGHTS", str(tmp_path))
    assert main(["reproduce", "unival_caption_stage_1"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "unival_caption_stage_1") in error and "UNIVAL_DATA" in error
    assert main(["reproduce", "unival_refcocopls"]) == 2
    assert "unival_refcocoplus" in capsys.readouterr().err
    assert main(["reproduce", "unival_refcoco", "--split", "testC"]) == 2
    assert "testA" in capsys.readouterr().err
    assert main(["reproduce", "unival_s1"]) == 2
    assert "no published score" in capsys.readouterr().err
    assert main(["reproduce"]) == 0
    assert "unival_audio_caption" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="Did you mean"):
        find_entry(ENTRIES, "unival_vqaa")


def test_verdicts() -> None:
    entry = Entry("x", "", "c", recipe=str(ROOT / "configs/evaluate/standin/evaluate.yaml"))
    result = {"main_metric": "m", "metrics": {"m": 0.5}, "n": 3, "decoding": {"beam": 1, "max_len_b": 20}}
    result["options"] = {"patch_image_size": 32}
    for target, verdict in (
        (Target("a", expected=50.4, tolerance=0.4), "reproduced"),
        (Target("a", expected=50.5, tolerance=0.4), "not reproduced"),
        (Target("a"), "no published value"),
    ):
        found = judge(entry, target, result)
        assert found.verdict == verdict and found.obtained == 50.0 and found.differences == ()
    assert (
        "part of the set"
        in judge(entry, Target("a", expected=50.0, tolerance=1), {**result, "limit": 3}).verdict
    )
    server = judge(entry, Target("a", expected=50.0, server="EvalAI"), {**result, "metrics": {}})
    assert server.verdict == "to be scored by EvalAI" and server.obtained is None
    other = {**result, "decoding": {"beam": 5, "max_len_b": 20}, "coverage": 0.5}
    lines = judge(entry, Target("a"), other).differences
    assert lines == ("decoding.beam: published 1, here 5", "coverage: published 100 %, here 50.0%")


def test_names_of_tasks() -> None:
    assert resolve_task("refcoco") == ("grounding", "image") and resolve_task("video_vqa_gen") == (
        "vqa",
        "video",
    )
    assert resolve_task("caption", "audio") == ("caption", "audio")
    with pytest.raises(ConfigError, match="Did you mean 'refcoco'"):
        resolve_task("refcco")
    pytest.importorskip("fairseq")
    import unival.tasks.finetune
    import unival.tasks.image_gen

    registered = {
        kind.__mro__[0]
        for plugin in (unival.tasks.finetune, unival.tasks.image_gen)
        for kind in vars(plugin).values()
        if isinstance(kind, type) and getattr(kind, "spec_name", "")
    }
    pairs = {(kind.spec_name, kind.modality) for kind in registered}
    assert pairs >= set(REFERENCE_TASKS.values())


@pytest.mark.slow
def test_the_stand_in_is_reproduced_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fairseq")
    roots = {
        "UNIVAL_DATA": str(tmp_path / "data"),
        "UNIVAL_OUT": str(tmp_path / "out"),
        "OMP_NUM_THREADS": "1",
    }
    for name, value in roots.items():
        monkeypatch.setenv(name, value)
    assert main(["reproduce", "standin"]) == 2
    error = capsys.readouterr().err
    assert "make them with" in error
    commands = [line.strip() for line in error.splitlines() if line.strip().startswith("unival ")]
    assert len(commands) == 2
    for command in commands:
        done = unival(*shlex.split(command)[1:], env=roots)
        assert done.returncode == 0, done.stderr[-2000:]
    found = unival("reproduce", "standin", "--device", "cpu", env=roots)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "reproduced" in found.stdout and "settings that differ: none" in found.stdout
    stated = ENTRIES["standin"].target("test")
    assert re.search(rf"expected\s+{stated.expected:.2f}\s+tolerance\s+{stated.tolerance:.2f}", found.stdout)
    words = [
        "reproduce",
        "standin",
        "--device",
        "cpu",
        "--eval-args",
        '{"beam": 2}',
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 0
    assert "decoding.beam: published 1, here 2" in capsys.readouterr().out
