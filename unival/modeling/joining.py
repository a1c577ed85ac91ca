"""The one place where modalities meet: which rows of a batch carry what, and how their tokens are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unival.core.modalities import FLOAT32_KEYS, MODALITIES, NAMES, TEXT_ONLY
from unival.core.transfers import numbers_of
from unival.errors import DataError
from unival.modeling.batch_facts import SourceFacts


@dataclass(slots=True)
class Tokens:
    """Embedded non-text tokens of n rows: one modality, or several joined.

    x (n, P, D); position (R, P, D) normalised position embeddings; ids (R, P) positions on the grid;
    padding (n, P) True where there is no token, has_padding: whether there is such a place. R is 1 where all rows
    share the layout, else n.
    """

    x: Tensor
    position: Tensor
    ids: Tensor
    padding: Tensor
    has_padding: bool = False

    def padded(self, length: int) -> Tokens:
        """Return per-row tokens (R = n) with padding up to ``length``."""
        n, p, width = self.x.shape
        more = length - p
        return Tokens(
            F.pad(self.x, (0, 0, 0, more)),
            F.pad(self.position.expand(n, p, width), (0, 0, 0, more)),
            F.pad(self.ids.expand(n, p), (0, more)),
            F.pad(self.padding, (0, more), value=True),
            self.has_padding or bool(n and more),
        )


@dataclass(slots=True)
class Media:
    """One modality of a batch: its name, the rows that carry it (None = all), their tensor.

    ``shared``: for each of these rows the row of ``tensor`` it uses; None when they correspond one to one.
    """

    modality: str
    rows: Tensor | None
    tensor: Tensor
    shared: Tensor | None = None


def route(
    batch: int,
    patch_types: Tensor | None,
    tensors: dict[str, Tensor | None],
    device: torch.device,
    facts: SourceFacts,
    patch_rows: Tensor | None = None,
) -> list[Media]:
    """Say which rows carry which modality.

    ``tensors`` has an entry per modality, with B rows (dummies where the type differs) or exactly as many
    rows as the batch has of that type. Without ``patch_types`` all rows are images, or text only when no
    image is given. With ``patch_rows`` (B) a tensor has one row per distinct medium. ``facts``: what the
    host knows of both. Raises DataError for an unknown type or a tensor that fits neither layout.
    """
    if patch_types is None or facts.types is None:
        image = tensors.get("image")
        return [] if image is None else [Media("image", None, _fitting("image", image, batch, batch, None))]
    if patch_types.shape != (batch,):
        raise DataError(
            f"patch_types has shape {tuple(patch_types.shape)}; one type per row needs ({batch},)"
        )
    types, patch_types = facts.types, patch_types.to(device)
    out = []
    for kind in sorted(set(types) - {TEXT_ONLY}):
        if not 0 <= kind < len(NAMES):
            raise DataError(f"patch type {kind} is unknown; use 0 image, 1 video, 2 audio or -1 text only")
        name = NAMES[kind]
        rows = [i for i, t in enumerate(types) if t == kind]
        tensor = tensors.get(name)
        if tensor is None:
            raise DataError(f"{len(rows)} rows have type {kind} ({name}), but patch_{name}s is missing")
        at = None if len(rows) == batch else numbers_of(patch_types == kind, len(rows))
        if patch_rows is not None and facts.media_rows is not None:
            _check_within(name, tensor, [facts.media_rows[i] for i in rows])
            shared = patch_rows if at is None else patch_rows.index_select(0, at)
            out.append(Media(name, at, tensor, shared))
            continue
        out.append(Media(name, at, _fitting(name, tensor, batch, len(rows), at)))
    return out


def _fitting(name: str, tensor: Tensor, batch: int, count: int, rows: Tensor | None) -> Tensor:
    dims = len(MODALITIES[name].shape)
    if tensor.dim() != dims:
        raise DataError(f"patch_{name}s has shape {tuple(tensor.shape)}; {dims} dimensions are expected")
    if tensor.size(0) == count:
        return tensor
    if tensor.size(0) == batch and rows is not None:
        return tensor.index_select(0, rows)
    raise DataError(
        f"patch_{name}s has {tensor.size(0)} rows; give {batch} (one per row of the batch) or {count} "
        f"(one per row of type {name})"
    )


def _check_within(name: str, tensor: Tensor, shared: Sequence[int]) -> None:
    if min(shared) < 0 or max(shared) >= tensor.size(0):
        raise DataError(
            f"patch_rows asks for row {max(shared)} of patch_{name}s, which has {tensor.size(0)} rows"
        )


def join(batch: int, groups: list[tuple[Tensor | None, Tokens]]) -> Tokens | None:
    """Bring the tokens of several modalities into batch order, padded to the longest.

    ``groups`` has (rows, tokens); rows without tokens become all padding. None when there are no tokens.
    """
    if not groups:
        return None
    if len(groups) == 1 and groups[0][0] is None:
        return groups[0][1]
    first = groups[0][1].x
    longest = max(tokens.x.size(1) for _, tokens in groups)
    parts = [tokens.padded(longest) for _, tokens in groups]
    # Concatenated group by group, then brought into the batch's order by one gather: no loop over rows.
    covered = torch.cat([r for r, _ in groups if r is not None])
    # One empty row at the end serves every row of the batch that has no tokens.
    source = torch.full((batch,), covered.numel(), dtype=torch.long, device=first.device)
    source[covered] = torch.arange(covered.numel(), device=first.device)

    def gather(name: str, fill: float | bool) -> Tensor:
        stacked = torch.cat([getattr(p, name) for p in parts])
        empty = stacked.new_full((1, *stacked.shape[1:]), fill)
        return torch.cat([stacked, empty]).index_select(0, source)

    has_padding = any(part.has_padding for part in parts) or bool(longest and covered.numel() < batch)
    return Tokens(
        gather("x", 0.0), gather("position", 0.0), gather("ids", 0), gather("padding", True), has_padding
    )


def sample_tokens(rows: int, tokens: int, limit: int | None, device: torch.device) -> Tensor | None:
    """Choose ``limit`` random tokens of each row, in order: int64 (rows, limit), or None for all of them.

    Draws from torch's global generator, as dropout does, so the engine's seed decides.
    """
    if limit is None or tokens <= limit:
        return None
    return torch.rand(rows, tokens, device=device).argsort(1)[:, :limit].sort(1).values


def as_precision(net_input: Mapping[str, Any], precision: torch.dtype) -> dict[str, Any]:
    """Give floating-point inputs the compute type, but for sound, whose front end works in float32."""
    return {
        name: value.to(precision)
        if isinstance(value, Tensor) and value.is_floating_point() and name not in FLOAT32_KEYS
        else value
        for name, value in net_input.items()
    }
