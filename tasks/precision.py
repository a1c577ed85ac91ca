"""The compute type of a training: chosen where it is left to the machine, and what stays float32 in any."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unival.core.device import gains_from_bfloat16
from unival.core.torchfile import load_torch
from unival.tasks.files import LAST


def choose_precision(args: Namespace) -> None:
    """Turn ``--precision auto`` into ``--bf16`` where the device computes in bfloat16.

    A run that goes on keeps the type that it began with, and ``--bf16``, ``--fp16`` and ``--amp`` decide where one of
    them is given.
    """
    if getattr(args, "precision", None) != "auto" or args.bf16 or args.fp16 or args.amp:
        return
    begun = next((path for path in _going_on_from(args) if path.is_file()), None)
    if begun is not None:
        args.bf16 = bool(load_torch(begun)["cfg"]["common"]["bf16"])
    else:
        args.bf16 = gains_from_bfloat16(None if not args.cpu else "cpu")


def _going_on_from(args: Namespace) -> Iterator[Path]:
    """Files that this start may go on from, the likeliest first."""
    for folder in (args.save_dir, getattr(args, "save_dir_fallback", None)):
        if folder:
            yield Path(folder) / LAST
    given = getattr(args, "restore_file", None) or LAST  # which the engine looks for in the save_dir
    if given != LAST and not getattr(args, "reset_optimizer", False):
        yield Path(given)


@contextmanager
def batch_norm_kept(model: nn.Module) -> Iterator[None]:
    """Give the model another compute type inside the block: weights and statistics of BatchNorm stay float32.

    A running mean takes a tenth of a new one at a time, which eight bits of mantissa would round away.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [{**dict(norm.named_parameters()), **dict(norm.named_buffers())} for norm in norms]
    values = [{name: tensor.data for name, tensor in tensors.items()} for tensors in kept]
    yield
    for norm, saved in zip(norms, values, strict=True):
        now = {**dict(norm.named_parameters()), **dict(norm.named_buffers())}
        for name, value in saved.items():
            now[name].data = value.to(now[name].device)
