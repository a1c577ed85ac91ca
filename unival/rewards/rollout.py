"""Outputs of the model for the rows of a batch, and the batch that teaches them back to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unival.batching.batch import pad_rows
from unival.core.modalities import KEPT_KEYS, KEYS
from unival.modeling.copies import release
from unival.predict.inference import Inference


@dataclass(frozen=True)
class Rollout:
    """K outputs for each of B rows.

    tokens (B, K, U) int64: what was generated, forced prefix and eos included, pad behind; scored (B, K, U):
    the same with pad where the model had no choice (prefix, an end that the length limit forced);
    present (B, K) bool: False where a row has fewer than K outputs; outputs: decoded as the task does, None
    where absent.
    """

    tokens: Tensor
    scored: Tensor
    present: Tensor
    outputs: list[list[Any]]


def roll_out(
    model: nn.Module,
    inference: Inference,
    sample: Mapping[str, Any],
    row_keys: Sequence[int],
    samples: int | None = None,
    ignore_prefix_size: int = 0,
) -> Rollout:
    """Generate for a collated batch in evaluation mode, without gradients, and leave the model as it was.

    row_keys: numbers that sampling draws from; ``samples``: outputs kept per row, best first, None for all.
    No generator that training draws from is touched.
    """
    found = [row[:samples] for row in inference.search(model, sample, row_keys)]
    release()
    pad, count = inference.vocabulary.pad, max(1, *(len(row) for row in found))
    tokens, scored, outputs = [], [], []
    for number, row in enumerate(found):
        unscored = max(ignore_prefix_size, _prefix_length(sample, number, pad))
        for item in row:
            ids = torch.tensor(item.tokens)
            tokens.append(ids)
            scored.append(ids.clone())
            scored[-1][:unscored] = pad
            if item.cut:
                scored[-1][-1] = pad
        absent = count - len(row)
        tokens += [torch.zeros(0, dtype=torch.int64)] * absent
        scored += [torch.zeros(0, dtype=torch.int64)] * absent
        outputs.append([inference.decode(sample, number, item.tokens) for item in row] + [None] * absent)
    device = sample["net_input"]["src_tokens"].device
    shape = (len(found), count, -1)
    present = torch.tensor([[k < len(row) for k in range(count)] for row in found])
    return Rollout(
        pad_rows(tokens, pad).view(shape).to(device),
        pad_rows(scored, pad).view(shape).to(device),
        present.to(device),
        outputs,
    )


def _prefix_length(sample: Mapping[str, Any], row: int, pad: int) -> int:
    prefix = sample["prefix_tokens"]
    return 0 if prefix is None else int(prefix[row].ne(pad).sum())


def shifted(tokens: Tensor, bos: int) -> Tensor:
    """Return the decoder inputs (N, U) that predict ``tokens`` (N, U): bos, then all but the last."""
    return torch.cat([torch.full_like(tokens[:, :1], bos), tokens[:, :-1]], dim=1)


def select_rows(net_input: Mapping[str, Any], rows: Tensor, prev_output_tokens: Tensor) -> dict[str, Any]:
    """Return the ``net_input`` of a batch that has row ``rows[i]`` (N,) of this one as its row i.

    Media are shared, so that each is encoded once however often its row occurs.
    """
    media = (*KEYS, *KEPT_KEYS)
    shared = {key: value for key, value in net_input.items() if key in media}
    chosen = {
        key: value if value is None else value.index_select(0, rows)
        for key, value in net_input.items()
        if key not in media
    }
    chosen["prev_output_tokens"] = prev_output_tokens
    if shared and "patch_rows" not in chosen:
        chosen["patch_rows"] = _places(net_input).index_select(0, rows)
    return {**shared, **chosen}


def _places(net_input: Mapping[str, Any]) -> Tensor:
    """For each row of a batch (B,) the row of its modality's tensor: one per row of the batch, or of its type."""
    types = net_input["patch_types"]
    places = torch.arange(len(types), device=types.device)
    for kind, key in enumerate(KEYS):
        of_kind = types == kind
        count = int(of_kind.sum())
        if count and len(net_input[key]) == count:
            places[of_kind] = torch.arange(count, device=types.device)
    return torch.where(types < 0, 0, places)
