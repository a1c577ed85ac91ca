"""The encoder's output of a batch, which a loss and a search over the same batch need alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from unival.modeling.encoder_output import EncoderOutput

TARGET_INPUTS = ("prev_output_tokens", "code_masks")
# They say of the batch what its tensors say as well.
ACCOMPANYING = ("src_lengths", "facts")

_Found = list[tuple[dict[str, Any], EncoderOutput]]
_found: ContextVar[_Found | None] = ContextVar("encoder outputs", default=None)


def encode(model: Any, net_input: Mapping[str, Any]) -> EncoderOutput:
    """Run the encoder on the source part of a batch, or return what :func:`encoded_once` has of these very tensors."""
    source = {name: value for name, value in net_input.items() if name not in TARGET_INPUTS}
    wanted = _identity(source)
    for known, output in _found.get() or ():
        if known.keys() == wanted.keys() and all(known[name] is wanted[name] for name in known):
            return output
    return model.encoder(**source)


@contextmanager
def encoded_once(model: Any) -> Iterator[None]:
    """Keep what the encoder gives in this block, to forward passes and to :func:`encode`, for later calls of it.

    For one batch, or the parts of one, of a model in evaluation mode without gradients, whose tensors and weights
    stay as they are: the same tensors then mean the same output.
    """
    found = list(_found.get() or ())

    def note(_: Any, positional: tuple[Any, ...], named: dict[str, Any], output: EncoderOutput) -> None:
        source = dict(zip(("src_tokens", "src_lengths"), positional, strict=False)) | named
        found.append((_identity(source), output))

    hook = model.encoder.register_forward_hook(note, with_kwargs=True)
    token = _found.set(found)
    try:
        yield
    finally:
        _found.reset(token)
        hook.remove()


def _identity(source: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in source.items() if value is not None and name not in ACCOMPANYING}
