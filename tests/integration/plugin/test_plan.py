"""``unival plan``: the memory that it says against what a real update keeps; the largest batch that fits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.plugin_runs import command
from tests.unit.modeling.test_planning import SMALL, net_input
from unival import build_model
from unival.cli.plan import try_batches
from unival.errors import ConfigError
from unival.modeling.memory import MIB, step_memory
from unival.tasks.fitting import ROOM, fit
from unival.tasks.optimizer import Adam
from unival.train import plan


@pytest.fixture
def words(world: Path, tables: Path, tmp_path: Path) -> list[str]:
    """The options of a small captioning run."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    return command("caption", data, world, tmp_path / "run", "--max-update=4")


def test_masters_and_moments_are_those_that_training_keeps() -> None:
    """A picture's update of a model that has networks of videos and sounds too."""
    model = build_model("unival_tiny", vocab_size=200, **SMALL)
    batch = {"net_input": net_input("image"), "nsentences": 3}
    planned = step_memory(model, [batch], torch.bfloat16)
    in_float32 = step_memory(model, [batch], torch.float32)
    weights = [sum(p.nbytes for p in model.to(kind).parameters()) for kind in (torch.float32, torch.bfloat16)]
    model.train()
    optimizer = Adam([p for p in model.parameters() if p.requires_grad])
    optimizer.keep_masters = True
    given = {
        name: v.to(torch.bfloat16) if v.is_floating_point() else v for name, v in net_input("image").items()
    }
    model(**given)[0].float().sum().backward()
    optimizer.step()
    moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    masters = sum(master.nbytes for master in optimizer.masters.values())
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert sum(v.nbytes for v in moments) == planned.optimizer == in_float32.optimizer
    assert gradients == planned.gradients
    buffers = in_float32.weights - weights[0]
    assert planned.weights == weights[1] + masters + buffers


def test_the_model_is_built_once(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from unival.models.unival import UnivalModel

    built: list[Any] = []
    build = UnivalModel.build_model.__func__  # type: ignore[attr-defined]

    def counted(cls: type, args: Any, task: Any) -> Any:
        built.append(build(cls, args, task))
        return built[-1]

    monkeypatch.setattr(UnivalModel, "build_model", classmethod(counted))
    said = plan(words).text
    assert len(built) == 1 and not next(built[0].parameters()).is_meta
    assert "MiB  together" in said and "time: about " in said


@pytest.mark.parametrize("start", [1, 7, 75, 76, 4096])
def test_the_largest_batch_is_found_from_anywhere(start: int) -> None:
    def step(rows: int) -> int:
        return 100 + 10 * rows

    found = fit(step, 1000, start, 5000)
    assert (found.rows, found.peak, found.all_rows) == (75, ROOM * 1000, False)
    assert fit(step, 10**6, start, 5000).rows == 4096, "larger ones are not looked for"
    table = fit(step, 1000, start, 50)
    assert (table.rows, table.all_rows) == (50, True) and "all rows" in table.line
    with pytest.raises(ConfigError, match="a step of one row takes about 100 MiB of 100 MiB"):
        fit(lambda rows: 100 * MIB * rows, 100 * MIB, start, 5000)


def test_fit_to_a_stated_memory(runner: Any, words: list[str], tmp_path: Path) -> None:
    """Large pictures, so that rows weigh more than what the process takes besides."""
    train, valid = words[0].split(",")
    recipe = {"task": "caption", "arch": "unival_tiny", "data": {"train": train, "valid": valid}}
    recipe |= {"criterion": "adjust_label_smoothed_cross_entropy", "optimizer": "adam"}
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({**recipe, "lr_scheduler": "polynomial_decay"}))
    chosen = ("--task", "--arch", "--criterion", "--optimizer", "--lr-scheduler=")
    options = [word for word in words[1:] if not word.startswith(chosen)]
    options += ["--patch-image-size=160", "--image-bucket-size=16", "--disable-validation"]

    def fitted(gigabytes: float, *more: str) -> tuple[str, Any, Any]:
        line = ["plan", str(file), *options, *more, "--fit", f"--memory={gigabytes}"]
        done = runner.start(line, tmp_path, cwd=tmp_path, program="unival.cli").finish()
        found = re.search(
            r"largest batch: --batch-size (\d+)(.*), with about ([\d,]+) of ([\d,]+) MiB", done.out
        )
        planned = re.search(r"([\d,]+) MiB  on this CPU", done.out)
        return done.err, planned, found and [found[2], *(int(found[k].replace(",", "")) for k in (1, 3, 4))]

    _, planned, (said, rows, peak, _) = fitted(100, "--batch-size=46")
    assert rows == 46 and "all rows of the training table" in said
    whole = int(planned[1].replace(",", ""))
    assert peak == pytest.approx(whole, rel=0.1), "as of a batch of so many different pictures"
    _, _, (said, rows, taken, limit) = fitted((peak - 300) * MIB / ROOM / 1e9)
    assert not said and 4 < rows < 46 and taken <= ROOM * limit < peak
    error, _, found = fitted(0.1)
    assert found is None and "error: --fit: a step of one row takes about" in error


def test_a_batch_is_tried(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert try_batches(words, 8, 8 * 10**9) == 8
    [said] = capsys.readouterr().out.splitlines()
    taken = re.fullmatch(r"tried: three updates of 8 rows, ([\d,]+) MiB at most", said)
    assert taken is not None and 300 < int(taken[1].replace(",", "")) < 3000
    assert not (tmp_path / "run").exists(), "nothing is written where the run would write"


def test_smaller_batches_are_tried_until_one_fits(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"--try: 1 rows do not fit in 1 MiB, [\d,]+ MiB at most\. Take"):
        try_batches(words, 2, MIB)
    assert [line.split(" rows")[0] for line in capsys.readouterr().out.splitlines()] == [
        "tried: 2",
        "tried: 1",
    ]
    with pytest.raises(ConfigError, match=r"--try: a run of 4 rows failed: .*--lr"):
        try_batches([*words, "--lr=x"], 4, MIB)


@pytest.mark.parametrize(
    "words", [["--memory=2"], ["--try"], ["--fit", "--memory=0"], ["--fit", "--memory=x"]]
)
def test_options_that_would_do_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from unival.cli import main

    try:
        code: Any = main(["plan", "absent.yaml", *words])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2 and ("give --fit" in said or "no number of gigabytes above 0" in said)
