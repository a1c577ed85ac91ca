"""An update as the engine's trainer makes it, without its files, its log and its data: for whoever measures one.

Weights in the compute type with BatchNorm in float32, the engine's optimizer of the name ``adam`` (float32 masters and
moments in bfloat16), gradients divided by the sample size and clipped, and both questions that an update asks the
device: the numbers of its batch and the norm of its gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import unival.plugin  # noqa: F401  (first: it imports the engine as a training does, without what is not needed)

# isort: split
from fairseq import optim
from omegaconf import OmegaConf

from unival.criterions.label_smoothed import LabelSmoothedCrossEntropy
from unival.losses import LossOptions
from unival.tasks.numbers import host_numbers
from unival.tasks.precision import batch_norm_kept

CLIP = 1.0


def give_precision(model: nn.Module, dtype: torch.dtype, keep_batch_norm: bool = True) -> None:
    """Give a model its compute type as the trainer does."""
    with batch_norm_kept(model) if keep_batch_norm else nullcontext():
        model.to(dtype)


def engine_optimizer(model: nn.Module, dtype: torch.dtype) -> Any:
    """The optimizer of that name in the engine's registry, as its trainer builds it."""
    adam = {"_name": "adam", "adam_betas": "(0.9, 0.999)", "adam_eps": 1e-8, "weight_decay": 0.01}
    adam |= {"use_old_adam": False, "fp16_adam_stats": False, "tpu": False, "lr": [1e-5]}
    half = dtype != torch.float32
    common = {"bf16": half, "fp16_scale_window": 1, "model_parallel_size": 1}
    cfg = OmegaConf.create({"optimizer": adam, "common": common, "optimization": {"update_freq": [1]}})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if half:
        return optim.FP16Optimizer.build_optimizer(cfg, trained)
    return optim.build_optimizer(cfg.optimizer, trained)


def apply_gradients(optimizer: Any, sample_size: float) -> None:
    """Scale, clip, ask for the norm, change the weights."""
    optimizer.multiply_grads(1 / sample_size)
    norm = optimizer.clip_grad_norm(CLIP)
    norm.cpu()
    optimizer.step()


class Update:
    """``sample``: one batch, or the groups of a mixture, whose losses the criterion joins."""

    def __init__(self, model: nn.Module, optimizer: Any, sample: Mapping[str, Any] | Sequence[Any]) -> None:
        self.model, self.optimizer, self.sample = model, optimizer, sample
        task = SimpleNamespace(vocabulary=SimpleNamespace(pad=1, eos=2))
        self.criterion = LabelSmoothedCrossEntropy(task, LossOptions(label_smoothing=0.1))

    def forward_backward(self) -> float:
        """Return the sample size."""
        loss, sample_size, log = self.criterion(self.model, self.sample)
        host_numbers(loss, log)
        self.optimizer.backward(loss)
        return float(sample_size)

    def __call__(self) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        apply_gradients(self.optimizer, self.forward_backward())
