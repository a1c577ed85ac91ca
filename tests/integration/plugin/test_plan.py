"""``unival plan``: the memory that it says against what a real update keeps, and how it gets there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.plugin_runs import command
from tests.unit.modeling.test_planning import SMALL, net_input
from unival import build_model
from unival.modeling.memory import step_memory
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
    said = plan(words)
    assert len(built) == 1 and not next(built[0].parameters()).is_meta
    assert "MiB  together" in said and "time: about " in said
