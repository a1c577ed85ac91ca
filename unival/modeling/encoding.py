"""The encoder's output of a batch, which a loss and a search over the same batch need alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unival.modeling.encoder_output import EncoderOutput

# They say of the batch what its tensors say as well.
ACCOMPANYING = ("src_lengths", "facts")

_Key = dict[str, tuple[Any, int]]
_found: ContextVar[list[tuple[Any, _Key, EncoderOutput]] | None] = ContextVar("encoder outputs", default=None)


def encode(encoder: Any, source: Mapping[str, Any]) -> EncoderOutput:
    """Run an encoder on the source part of a batch; within :func:`encoded_once`, on the same tensors only once."""
    found = None if torch.compiler.is_compiling() else _found.get()
    if found is None:
        return encoder(**source)
    wanted = _identity(source)
    for other, known, output in found:
        if other is encoder and _same(known, wanted):
            return output
    output = encoder(**source)
    found.append((encoder, wanted, replace(output, layers=[])))
    return output


@contextmanager
def encoded_once() -> Iterator[None]:
    """Keep what encoders give in this block, and this thread, to forward passes and searches, for later ones.

    For one batch, or the parts of one, of models in evaluation mode without gradients, whose weights stay as they
    are: the same tensors then mean the same output. Outputs of layers are not kept.
    """
    token = _found.set(list(_found.get() or ()))
    try:
        yield
    finally:
        _found.reset(token)


def _same(one: _Key, other: _Key) -> bool:
    """Tensors are told apart by what they are, not by their values."""
    return one.keys() == other.keys() and all(
        one[name][0] is other[name][0] and one[name][1] == other[name][1] for name in one
    )


def _identity(source: Mapping[str, Any]) -> _Key:
    """The tensors themselves, and how often they were changed in place."""
    return {
        name: (value, value._version if isinstance(value, Tensor) and not value.is_inference() else 0)
        for name, value in source.items()
        if value is not None and name not in ACCOMPANYING
    }
