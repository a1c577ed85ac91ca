"""An update of every kind of batch where there is no GPU: tensors that say they are on one and hold nothing.

Operations on them check devices, types and shapes as a GPU's do; what kernels compute is for a GPU to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm

from unival.modeling import attention

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
KINDS = ("image", "video", "audio", "text", "mixture")


def give_bfloat16(model: nn.Module) -> None:
    """As the trainer does, by hand: ``Module.to`` cannot exchange such parameters in place."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        dtype = torch.float32 if isinstance(module, _BatchNorm) else torch.bfloat16
        for name, parameter in module._parameters.items():
            if parameter is not None:
                value = parameter.detach().to("cuda", dtype)
                new = nn.Parameter(value, parameter.requires_grad)
                module._parameters[name] = made.setdefault(parameter, new)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to("cuda", dtype if buffer.is_floating_point() else None)


def on_gpu(sample: Any) -> Any:
    """A sample whose tensors are on the GPU; what the host knows of it stays."""
    if isinstance(sample, list):
        return [on_gpu(part) for part in sample]
    net_input = {name: torch.empty_like(value, device="cuda") for name, value in sample["net_input"].items()}
    target = torch.empty_like(sample["target"], device="cuda")
    return {**sample, "net_input": net_input, "target": target}


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_fits_a_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import step_inputs
    import updates

    # tensors that hold nothing begin nowhere
    monkeypatch.setattr(attention, "_aligned", lambda bias: bias)
    assert kind in step_inputs.KINDS
    real = step_inputs.sample_of(kind, 4, step_inputs.TINY, "cpu", torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            model = step_inputs.model_of(step_inputs.TINY, step_inputs.networks_of(kind))
        give_bfloat16(model)
        optimizer = updates.engine_optimizer(model, torch.bfloat16)
        update = updates.Update(model.train(), optimizer, on_gpu(real))
        loss, sample_size, _ = update.criterion(model, update.sample)
        assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)
        for parameter in model.parameters():  # the backward pass needs the device itself
            parameter.grad = torch.empty_like(parameter)
        updates.apply_gradients(optimizer, sample_size)
        adam = optimizer.optimizer
        assert {master.dtype for master in adam.masters.values()} == {torch.float32}
        assert {tensor.device.type for tensor in adam.masters.values()} == {"cuda"}
