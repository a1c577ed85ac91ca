"""The worked example of a task outside the project: checked, trained, evaluated, predicted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.plugin_runs import DATA, MODEL

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "docs/examples"
PLUGIN = EXAMPLES / "counting.py"


def run(words: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_task_in_one_file(world: Path, tmp_path: Path) -> None:
    assert len(PLUGIN.read_text(encoding="utf-8").splitlines()) < 100
    images = sorted((world / "images").iterdir())[:12]
    table = tmp_path / "counts.jsonl"
    rows = [{"image": str(image), "thing": "circles", "count": n % 3} for n, image in enumerate(images)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = dict(word.removeprefix("--").split("=") for word in (*MODEL, *DATA))
    recipe = {
        "task": "counting",
        "arch": options.pop("arch"),
        "criterion": "adjust_label_smoothed_cross_entropy",
        "optimizer": "adam",
        "lr_scheduler": "fixed",
        "data": {"train": str(table), "valid": str(table)},
        "inputs": {
            "bpe_dir": str(world / "vocabulary"),
            "most_things": 4,  # an option that only this task has
            **{k.replace("-", "_"): v for k, v in options.items()},
        },
        "optimization": {"lr": 0.001, "batch_size": 4, "max_update": 3},
        "checkpoint": {
            "save_dir": str(tmp_path / "out/counting"),
            "no_epoch_checkpoints": True,
            "networks_from_scratch": True,
        },
        "run": {"num_workers": 0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    checkpoint = "out/counting/checkpoint_best.pt"
    # one interpreter for all verbs: importing the engine is what takes time
    code = (
        "import sys\n"
        "from unival.cli import main\n"
        "for words in (['data', 'validate', 'counts.jsonl', '--task', 'counting'], ['train', 'recipe.yaml'],\n"
        f"              ['evaluate', '{checkpoint}', 'counts.jsonl', '--out', 'result'],\n"
        f"              ['predict', '{checkpoint}', 'counts.jsonl', '--out', 'answers.jsonl'],\n"
        f"              ['predict', '{checkpoint}', {str(images[0])!r}, '--text', 'circles', '--out', 'one.jsonl']):\n"
        "    code = main(words)\n"
        "    if code: sys.exit(code)\n"
        "import json, unival\n"
        "from fastapi.testclient import TestClient\n"
        "from unival.demo.actions import possible\n"
        "from unival.serve import create_app\n"
        f"model, picture = unival.load('{checkpoint}', device='cpu'), {str(images[0])!r}\n"
        "result = model.ask('counting', picture, {'thing': 'circles'})\n"
        "sent = TestClient(create_app(model)).post('/counting', files={'media': open(picture, 'rb')},\n"
        "                                          data={'thing': 'circles'}).json()\n"
        "titles = [action.offer.title for action in possible(model.modalities)['image']]\n"
        "print(json.dumps([result.text, result.distribution, sent, titles]))\n"
    )
    done = run(["-c", code], tmp_path, UNIVAL_PLUGINS=str(PLUGIN))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 usable" in done.stdout
    result = json.loads((tmp_path / "result/result.json").read_text(encoding="utf-8"))
    assert set(result["metrics"]) == {"accuracy", "mean_error"} and result["task"] == "counting"
    assert result["options"]["most_things"] == 4
    answers = [json.loads(line)["count"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 12 and all(0 <= int(answer) <= 4 for answer in answers)
    # files, Python, the service and the page know it too
    text, shares, sent, titles = json.loads(done.stdout.splitlines()[-1])
    [line] = (tmp_path / "one.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["count"] == text == sent["text"] and json.loads(line)["thing"] == "circles"
    assert (
        next(iter(shares)) == text
        and len(shares) == 5
        and titles == ["Describe", "Ask", "Find", "Judge", "Count"]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "is not a file"), ("raise ValueError('no')", "fails: ValueError: no")],
)
def test_plugins_that_cannot_be_loaded(text: str | None, message: str, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    if text is not None:
        plugin.write_text(text, encoding="utf-8")
    words = ["-m", "unival", "data", "validate", "t.jsonl", "--task", "caption"]
    done = run(words, tmp_path, UNIVAL_PLUGINS=str(plugin))
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
