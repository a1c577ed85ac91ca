"""--compile: the numbers, names and files of a run that is not compiled, and a run without a compiler."""

from __future__ import annotations

import logging

import pytest
import torch

import unival.plugin  # noqa: F401
from tests.support.checks import weights
from unival.modeling.regions import REGIONS
from unival.tasks.compiling import set_compiled

CPU = torch.device("cpu")


@pytest.fixture
def as_written():
    yield
    set_compiled(False, CPU)


def test_a_compiled_run_is_the_run_as_written(train, tables):
    """Dropout included. Without writing machine code, which takes torch a minute and is torch's own affair."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    options = ("--disable-validation", "--compile-backend=aot_eager")
    plain = train("caption", data, *options, "--max-update=3", name="plain").ok()
    compiled = train("caption", data, *options, "--max-update=3", "--compile", name="compiled").ok()
    assert all(f"({name})" in compiled.text for name in ("image_network", "encoder_layers", "decoder_layers"))
    assert "compilation 1 (" in compiled.text and "cannot be compiled" not in compiled.text
    assert compiled.losses() == pytest.approx(plain.losses(), rel=1e-4)
    one, other = weights(plain.folder)["model"], weights(compiled.folder)["model"]
    assert {name: value.shape for name, value in one.items()} == {
        name: value.shape for name, value in other.items()
    }
    again = train("caption", data, *options, "--max-update=4", name="compiled").ok()
    assert len(again.losses()) == 4 and "compilation" not in again.text


def test_older_versions_of_torch_know_what_torch_compile_is_given(monkeypatch, as_written):
    """setup.py takes torch from 2.6 on."""
    given = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: given.append(options) or function)
    assert set_compiled(True, CPU, "aot_eager")
    assert {name for options in given for name in options} <= {"dynamic", "backend", "options"}
    assert torch._dynamo.config.recompile_limit >= 32, "a stack of layers has more versions than torch's 8"


def test_an_update_ends_a_step_of_cuda_graphs(as_written):
    """Else torch gives the gradients of an update's first batch away when the second one begins."""
    from torch._inductor.cudagraph_trees import MarkStepBox

    assert set_compiled(True, CPU, "cudagraphs")
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    begun = MarkStepBox.mark_step_counter
    assert begun != 0, "from the first update on only marks begin a step"
    for _ in range(2):
        (weight**2).sum().backward()
        assert begun == MarkStepBox.mark_step_counter
    optimizer.step()
    assert begun - 1 == MarkStepBox.mark_step_counter


def test_without_a_compiler_the_run_goes_on(caplog, as_written):
    from torch._inductor import config as inductor

    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), caplog.at_level(logging.WARNING):
        assert not set_compiled(True, CPU)
    assert "--compile: nothing can be compiled for the cpu here (" in caplog.text
    assert "no-such-compiler" in caplog.text and "The run goes on without it" in caplog.text
    assert all(region.compiled is None for region in REGIONS)


def test_a_region_that_cannot_be_compiled_runs_as_written(monkeypatch, caplog, as_written):
    monkeypatch.setattr("unival.tasks.compiling._obstacle", lambda device, backend: "")
    network = next(region for region in REGIONS if region.function.__name__ == "whole_network")
    set_compiled(True, CPU)
    module, x = torch.nn.GELU(), torch.randn(5, 3)
    from torch._inductor import config as inductor

    without = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    with inductor.patch(without), caplog.at_level(logging.WARNING):
        assert torch.equal(network(module, x), module(x))
    assert "'whole_network' cannot be compiled" in caplog.text
    assert network.compiled is None
