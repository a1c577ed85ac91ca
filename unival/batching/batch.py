"""From prepared examples to the batch that the model and the criterions read.

The names below ``net_input`` are the reference's. Modality tensors are compact: ``patch_images`` has as
many rows as the batch has image rows (no dummy pictures for the others), in row order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from unival.core.modalities import MODALITIES, patch_type
from unival.errors import DataError
from unival.media.features import Place
from unival.modeling.batch_facts import BatchFacts, SourceFacts, TargetFacts
from unival.modeling.joining import as_precision

AllowedTokens = list[list[int]]


def _empty() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


class Asked(Protocol):
    """What decoding needs to know of a row: an Example has it, and so has a row's place in a batch."""

    @property
    def prefix(self) -> Tensor:
        """Tokens that decoding was forced to begin with (P,), without bos."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Original (width, height) in pixels."""

    @property
    def resize(self) -> tuple[float, float] | None:
        """Ratios (network width / original width, ...height)."""


@dataclass(slots=True)
class Example:
    """One prepared row.

    source (T,) int64 ``bos .. eos``; target (U,) int64 ``.. eos`` with pad where a position is not scored;
    prev_output (U,) int64 ``bos ..``; media: image (3, h, w), video (3, F, h, w) or audio (N,), float32;
    prefix (P,) tokens that decoding is forced to begin with, without bos. ``reference`` is what scores
    compare with: captions (list of str), answers (dict answer -> confidence), a label, or a box
    (x0, y0, x1, y1) in pixels of the original image; None when the row carries none. ``size`` is the
    original (width, height) in pixels, ``resize`` the ratios (network width / original width, ...height).
    ``allowed``: per target position, the tokens a constraint permits (empty list: position not scored).
    ``code_image``: the PIL picture that generated pictures are compared with, where that is asked for.
    ``kept``: ``media`` holds the features (C, *grid) of a frozen network in place of the medium; ``place``: where
    the features of this medium will be kept.
    """

    id: str
    source: Tensor
    target: Tensor
    prev_output: Tensor
    modality: str | None = None
    media: Tensor | None = None
    prefix: Tensor = field(default_factory=_empty)
    weight: float = 1.0
    reference: Any = None
    size: tuple[int, int] | None = None
    resize: tuple[float, float] | None = None
    code_target: bool = False
    allowed: AllowedTokens | None = None
    source_name: str = ""
    code_image: Any = None
    kept: bool = False
    place: Place | None = None


def collate(examples: Sequence[Example], pad: int = 1) -> dict[str, Any]:
    """Join examples of any modalities into one batch; no examples give an empty dict.

    Top level: id (list of str), nsentences, ntokens (scored target tokens), target (B, U), conf (B, 1, 1)
    float32 or None when every weight is 1, prefix_tokens (B, P) or None, references, sizes, resizes,
    source_names, allowed, code_images (lists of length B; the last two are None when no example has one).
    net_input: src_tokens (B, T), src_lengths (B,), prev_output_tokens (B, U), patch_types (B,) with
    0 image, 1 video, 2 audio, -1 text only, patch_masks (B,) bool (True: the row has media), the compact
    patch_images (b, 3, h, w), patch_videos (b, 3, F, h, w), patch_audios (b, N) where rows have them,
    patch_rows (B,) when examples share one media tensor object (each is then stacked once), and
    code_masks (B,) bool when a target consists of image codes. Padding is on the right.
    Where examples hold kept features: kept_images (b, C, *grid) and so on for all distinct media of the modality, NaN
    for those without, whose pixels alone are in patch_images; and patch_rows. ``places`` (modality -> list, one per
    row of its media tensor) says where new features belong.
    ``facts``: what stays known on the host when the tensors have left it (a device asked for it would stop).
    """
    if not examples:
        return {}
    target = pad_rows([e.target for e in examples], pad)
    source = pad_rows([e.source for e in examples], pad)
    net_input: dict[str, Tensor] = {
        "src_tokens": source,
        "src_lengths": torch.tensor([len(e.source) for e in examples]),
        "prev_output_tokens": pad_rows([e.prev_output for e in examples], pad),
        "patch_types": torch.tensor([patch_type(e.modality) for e in examples]),
        "patch_masks": torch.tensor([e.modality is not None for e in examples]),
    }
    shared, used, places = False, dict[int, int](), dict[str, list[Place | None]]()
    for modality in MODALITIES.values():
        rows = [e for e in examples if e.modality == modality.name]
        if rows:
            distinct = list({id(e.media): e for e in rows}.values())
            fresh = [e for e in distinct if not e.kept]
            if fresh:
                net_input[modality.key] = _stack_media(fresh, modality.name)
                places[modality.name] = [e.place for e in fresh]
            if len(fresh) < len(distinct):
                net_input[modality.kept_key] = _stack_kept(distinct, modality.name)
            if len(distinct) < len(rows) or len(fresh) < len(distinct):
                shared = True
            place = {id(e.media): position for position, e in enumerate(distinct)}
            used.update({id(e): place[id(e.media)] for e in rows})
    if shared:
        net_input["patch_rows"] = torch.tensor([used.get(id(e), 0) for e in examples])
    if any(e.code_target for e in examples):
        net_input["code_masks"] = torch.tensor([e.code_target for e in examples])
    weighted = any(e.weight != 1.0 for e in examples)
    facts = BatchFacts(
        SourceFacts.of(
            source, net_input["patch_types"], net_input["patch_masks"], net_input.get("patch_rows")
        ),
        TargetFacts.of(net_input["prev_output_tokens"], net_input.get("code_masks")),
        target.numpy(),
    )
    return {
        "id": [e.id for e in examples],
        "nsentences": len(examples),
        "ntokens": int(target.ne(pad).sum()),
        "net_input": net_input,
        "facts": facts,
        "target": target,
        "conf": torch.tensor([e.weight for e in examples]).view(-1, 1, 1) if weighted else None,
        "prefix_tokens": (
            pad_rows([e.prefix for e in examples], pad) if any(len(e.prefix) for e in examples) else None
        ),
        "references": [e.reference for e in examples],
        "sizes": [e.size for e in examples],
        "resizes": [e.resize for e in examples],
        "source_names": [e.source_name for e in examples],
        "places": places,
        "allowed": [e.allowed for e in examples] if any(e.allowed is not None for e in examples) else None,
        "code_images": (
            [e.code_image for e in examples] if any(e.code_image is not None for e in examples) else None
        ),
    }


def pad_rows(rows: Sequence[Tensor], pad: int) -> Tensor:
    """Stack 1-d int64 rows into (B, longest), filled with ``pad`` on the right."""
    out = torch.full((len(rows), max(len(row) for row in rows)), pad, dtype=torch.int64)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out


def _stack_media(rows: Sequence[Example], modality: str) -> Tensor:
    tensors: list[Tensor] = []
    for row in rows:
        if row.media is None:
            raise DataError(f"example '{row.id}' is a row with {modality} but carries no media")
        if tensors and row.media.shape != tensors[0].shape:
            raise DataError(
                f"example '{row.id}' has {modality} of shape {tuple(row.media.shape)} beside "
                f"{tuple(tensors[0].shape)}: all rows of a batch need the same sizes and frame counts"
            )
        tensors.append(row.media)
    return torch.stack(tensors)


def _stack_kept(rows: Sequence[Example], modality: str) -> Tensor:
    known = _stack_media([row for row in rows if row.kept], modality)
    whole = known.new_full((len(rows), *known.shape[1:]), float("nan"))
    whole[torch.tensor([row.kept for row in rows])] = known
    return whole


def to_device(batch: Mapping[str, Any], device: str, dtype: str) -> dict[str, Any]:
    """Move a batch and give the model's inputs the compute type ("float32", "bfloat16", ...)."""

    def moved(values: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in values.items()}

    return {**moved(batch), "net_input": as_precision(moved(batch["net_input"]), getattr(torch, dtype))}
