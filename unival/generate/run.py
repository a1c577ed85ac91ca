"""From a batch to hypotheses: encoder, decoder state, limits, search."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unival.core.transfers import to_host
from unival.errors import ConfigError
from unival.generate.beam import beam_search
from unival.generate.constraints import parse_range
from unival.generate.rows import PAD, Rows, Steps, Task
from unival.generate.sample import sample
from unival.generate.settings import GenerationSettings, Hypothesis
from unival.generate.trie import Trie
from unival.modeling.encoder_output import EncoderOutput
from unival.modeling.encoding import encode as encoded
from unival.modeling.products import generating

TARGET_INPUTS = ("prev_output_tokens", "code_masks")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode and the processor's own products for the block; a model in training is put back."""
    training = model.training
    model.eval()
    try:
        with generating():
            yield
    finally:
        model.train(training)


def encode(model: Any, net_input: Mapping[str, Any]) -> EncoderOutput:
    """Run the encoder on the source part of a batch."""
    return encoded(model.encoder, {k: v for k, v in net_input.items() if k not in TARGET_INPUTS})


@torch.no_grad()
def generate(
    model: Any,
    net_input: Mapping[str, Any],
    settings: GenerationSettings | Mapping[str, Any] | None = None,
    constraint: Trie | tuple[int, int] | str | None = None,
    prefix_tokens: Tensor | None = None,
    row_keys: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Return the hypotheses of every row, best first: at most ``beam``, fewer where fewer can end.

    net_input: the batch's ``net_input`` on the model's device; constraint: a Trie (what may follow the
    prefix), or a vocabulary range; prefix_tokens: (B, P) int64 without bos, padded with 1, which outputs are
    forced to begin with; row_keys: numbers that identify rows for sampling (default: a checksum of the source
    tokens). A row's result depends on that row alone. ``max_len_a`` counts the row's own source tokens.
    With ``gen_code`` all rows are image codes. Runs in evaluation mode, without gradients.
    Raises ConfigError for settings that do not fit together.
    """
    settings = GenerationSettings.of(settings)
    limits = parse_range(settings.constraint_range)
    trie = constraint if isinstance(constraint, Trie) else None
    if constraint is not None and trie is None:
        if limits is not None and limits != parse_range(constraint):  # type: ignore[arg-type]
            raise ConfigError(f"two vocabulary ranges: {constraint} and {settings.constraint_range}")
        limits = parse_range(constraint)  # type: ignore[arg-type]
    if trie is not None and limits is not None:
        raise ConfigError("a trie and a vocabulary range exclude each other: give one of them")
    source = net_input["src_tokens"]
    batch, host_source = len(source), to_host(source)
    if batch == 0:
        return []
    prefix = np.zeros((batch, 0), dtype=np.int64) if prefix_tokens is None else to_host(prefix_tokens)
    if len(prefix) != batch:
        raise ConfigError(f"{len(prefix)} rows of prefix tokens do not fit a batch of {batch}")
    code_masks = net_input.get("code_masks")
    if settings.gen_code:
        code_masks = torch.ones(batch, dtype=torch.bool, device=source.device)
    limit = _limits(settings, host_source, code_masks, model.decoder)
    task = Task(settings, trie, limits, prefix.astype(np.int64), limit)
    rows = Rows.start(task)
    with evaluating(model):
        state = model.decoder.start(encode(model, net_input), int(limit.max()) + 1, code_masks=code_masks)
        steps = Steps(model.decoder, state, rows)
        if not settings.sampling:
            return beam_search(rows, steps)
        return sample(rows, steps, row_keys if row_keys is not None else _keys(host_source))


def _limits(
    settings: GenerationSettings, source: np.ndarray, code_masks: Tensor | None, decoder: Any
) -> np.ndarray:
    """Tokens before eos of each row (B,); text is cut at the decoder's last position."""
    lengths = (source != PAD).sum(1)
    limit = (settings.max_len_a * lengths + settings.max_len_b).astype(np.int64)
    if code_masks is None or not bool(code_masks.any()):
        limit = np.minimum(limit, decoder.max_positions() - 1)
    return limit


def _keys(source: np.ndarray) -> list[int]:
    return [zlib.crc32(row[row != PAD].tobytes()) for row in source]
