"""The real programs, from start to end: unival train, fairseq-train, the launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.checks import weights
from tests.support.plugin_runs import DATA, FIRST_OPTIONS, MODEL, ROOT, command


def call(words: list, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    everything = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run([str(w) for w in words], cwd=cwd, env=everything, capture_output=True, text=True)


@pytest.fixture
def recipe(world, tables, tmp_path) -> Path:
    """A recipe of the small model, its data given by variables."""

    def options(words: list[str]) -> dict:
        pairs = (word.lstrip("-").split("=") for word in words)
        return {name.replace("-", "_"): yaml.safe_load(value) for name, value in pairs}

    content = {
        "task": "caption",
        "arch": "unival_tiny",
        "criterion": "adjust_label_smoothed_cross_entropy",
        "optimizer": "adam",
        "lr_scheduler": "polynomial_decay",
        "data": {
            "train": "${UNIVAL_DATA}/tables/caption_train.tsv",
            "valid": "${UNIVAL_DATA}/tables/caption_val.tsv",
        },
        "model": options(MODEL[1:]),
        "inputs": options(DATA) | {"bpe_dir": "${UNIVAL_DATA}/vocabulary", "image_dir": "${UNIVAL_DATA}"},
        "optimization": {"lr": 0.001, "max_update": 2, "batch_size": 4, "warmup_ratio": 0.5},
        "validation": {"eval_args": {"beam": 1, "max_len_b": 12}},
        "checkpoint": {
            "save_dir": "${UNIVAL_OUT}/run",
            "no_epoch_checkpoints": True,
            "networks_from_scratch": True,
        },
        "run": {"log_format": "simple", "log_interval": 1, "num_workers": 0},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_launcher_starts_two_processes(recipe, world, tmp_path):
    done = call(
        ["bash", ROOT / "run_scripts/_launch.sh", "train", recipe, "--ddp-backend=legacy_ddp"],
        GPUS="2",
        UNIVAL_DATA=str(world),
        UNIVAL_OUT=str(tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if " | " in line]
    assert lines[0].endswith(f"{recipe}: loading torch and fairseq")
    assert done.stdout.count("loading torch") == 1
    assert "2 rank(s) x 4 rows x 1 accumulated = 8 rows" in done.stdout
    assert done.stdout.count("num_updates=2") == 1  # one rank reports
    assert weights(tmp_path / "out/run")["optimizer_history"][-1]["num_updates"] == 2


def test_plain_fairseq_train_from_another_folder(world, tables, tmp_path):
    program = Path(sys.executable).with_name("fairseq-train")
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    words = command("caption", data, world, tmp_path / "run", "--max-update=2", "--bf16")
    done = call([program, *words, f"--user-dir={ROOT / 'unival'}"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert weights(tmp_path / "run", "checkpoint_best.pt")["extra_state"]["best"] >= 0
    assert "shared parameter" not in done.stdout + done.stderr


def test_recipe_runs_and_its_mistakes_are_named(runner, recipe, world, tmp_path):
    env = {"UNIVAL_DATA": str(world), "UNIVAL_OUT": str(tmp_path / "out")}
    folder = tmp_path / "out" / "run"
    runner.start(["train", recipe, "--max-update", "1"], folder, env, program="unival.cli").finish().ok()

    def mistake(change, *parts):
        content = yaml.safe_load(recipe.read_text())
        change(content)
        path = tmp_path / "wrong.yaml"
        path.write_text(yaml.safe_dump(content))
        run = runner.start(["train", path], folder, env, program="unival.cli").finish()
        assert run.code == 2 and "Traceback" not in run.text, run.text
        for part in parts:
            assert part in run.err, run.err

    mistake(lambda c: c.update(optimisation=c.pop("optimization")), "optimisation", "'optimization'")
    mistake(lambda c: c["optimization"].update(lr_rate=1), "lr_rate", "Did you mean")
    mistake(lambda c: c.update(task="captions"), "captions", "'caption'")
    mistake(lambda c: c["inputs"].update(bpe_dir="${UNIVAL_DATUM}/x"), "UNIVAL_DATUM", "'UNIVAL_DATA'")
    mistake(lambda c: c["model"].update(max_update=3), "two sections")
    mistake(lambda c: c.pop("checkpoint"), "save_dir")
    run = runner.start(["train", recipe, "--lr-rate=1"], folder, env, program="unival.cli").finish()
    assert run.code == 2 and "unknown option 'lr-rate'" in run.err
    assert FIRST_OPTIONS
