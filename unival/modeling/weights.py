"""Copying weights into a model: strict, with declared exceptions and a report of every key."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unival.core.modalities import NAMES, encoder_parts
from unival.core.seeding import rng_for
from unival.errors import CheckpointError

TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
# Tables that construction computes from the options; a checkpoint's copies are never taken.
COMPUTED = re.compile(
    r"(token_rp_bucket|image_rp_bucket|image_position_idx|(encoder|decoder)\.version"
    r"|stft\.conv_(real|imag)\.weight)$"
)
MEL_BANK = "logmel_extractor.melW"
# Reasons in a report.
ABSENT = "not in the file"
UNKNOWN = "not in the model"
REBUILT = "computed from the options"


@dataclass
class LoadReport:
    """What happened to every key, and why: ``taken`` as they are, ``resized`` (key: how), ``skipped`` keys of
    the file (key: reason), ``kept`` keys of the model that stay as initialised (key: reason)."""

    taken: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def loaded(self) -> int:
        return len(self.taken) + len(self.resized)

    @property
    def missing(self) -> list[str]:
        """Keys of the model that the file should have had, or was allowed not to have."""
        return [key for key, why in self.kept.items() if why != REBUILT]

    @property
    def unexpected(self) -> list[str]:
        """Keys of the file without a counterpart in the model."""
        return [key for key, why in self.skipped.items() if why != REBUILT]

    # names that torch's own result has
    missing_keys = missing
    unexpected_keys = unexpected

    def resize(self, key: str, how: str) -> None:
        """Say of a taken key that it was taken in another form."""
        self.taken.remove(key)
        self.resized[key] = how

    def lines(self) -> list[str]:
        """One line per key."""
        return [
            *(f"taken {key}" for key in self.taken),
            *(f"resized {key}: {how}" for key, how in self.resized.items()),
            *(f"skipped {key}: {why}" for key, why in self.skipped.items()),
            *(f"kept {key}: {why}" for key, why in self.kept.items()),
        ]

    def __str__(self) -> str:
        lines = [f"{self.loaded} tensors loaded"]
        lines += [f"resized {key}: {how}" for key, how in self.resized.items()]
        for title, reasons in (("not used", self.skipped), ("kept as they were", self.kept)):
            for reason in dict.fromkeys(reasons.values()):
                keys = [key for key, why in reasons.items() if why == reason]
                if reason != REBUILT:
                    lines.append(f"{len(keys)} {title} ({reason}): {_summary(keys)}")
        return "\n  ".join(lines)


def _summary(keys: Sequence[str], limit: int = 8) -> str:
    """Group keys by their first two parts: `encoder.embed_videos.* (624)`."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        parts = key.split(".")
        groups.setdefault(".".join(parts[:2]) if len(parts) > 3 else key, []).append(key)
    shown = [f"{g}.* ({len(k)})" if len(k) > 1 else k[0] for g, k in groups.items()]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(re.search(p, key) for p in patterns)


def modality_exceptions(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Patterns (allow_missing, allow_unexpected) for whole modalities that only one side has.

    A modality of the model that the checkpoint lacks keeps its initial weights, all of it or none.
    """
    patterns = tuple(rf"^encoder\.({'|'.join(encoder_parts(m))})\." for m in NAMES)
    return patterns, patterns


@torch.no_grad()
def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    extend: bool = False,
) -> LoadReport:
    """Copy ``state`` into ``model``; strict but for the declared regular expressions.

    Computed tables are rebuilt, never taken, nor are mel filters under ``mel_bank="computed"``. Tied keys may
    be given once. A type embedding with fewer rows than the model's is extended by copies of its image row.
    ``extend``: smaller token and position tables are extended too, as :func:`extend_table` says.
    Raises CheckpointError listing every key or shape that does not fit; the model is then unchanged.
    """
    own = model.state_dict(keep_vars=True)
    computed = _computed(model)
    report = LoadReport(kept={key: REBUILT for key in own if computed(key)})
    given = _upgraded(state, computed, report)
    for key in TIED:
        source = next((given[k] for k in TIED if k in given), None)
        if key in own and key not in given and source is not None:
            given[key] = source
    problems = []
    copies: list[tuple[Tensor, Tensor]] = []
    for key, tensor in own.items():
        if key in report.kept:
            continue
        if key not in given:
            report.kept[key] = ABSENT
            if not _matches(key, allow_missing):
                problems.append(f"missing {key} {tuple(tensor.shape)}")
            continue
        value = given[key]
        if value.shape != tensor.shape:
            grown = _with_type_rows(key, value, tensor) or (
                extend_table(key, value, tensor) if extend else None
            )
            if grown is None:
                problems.append(f"{key}: checkpoint {tuple(value.shape)}, model {tuple(tensor.shape)}")
                continue
            report.resized[key] = f"{tuple(value.shape)} -> {tuple(tensor.shape)}, {grown[1]}"
            value = grown[0]
        else:
            report.taken.append(key)
        copies.append((tensor, value))
    for key in given:
        if key not in own:
            report.skipped[key] = UNKNOWN
            if not _matches(key, allow_unexpected):
                problems.append(f"unexpected {key} {tuple(given[key].shape)}")
    if problems:
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        shown = "\n  ".join(problems[:20] + more)
        raise CheckpointError(
            f"{len(problems)} entries do not fit the model; build it with the checkpoint's options "
            f"(sizes, networks, vocabulary), or declare the difference:\n  {shown}"
        )
    for tensor, value in copies:
        tensor.copy_(value)
    return report


def _computed(model: nn.Module) -> Callable[[str], bool]:
    config = getattr(model, "config", None)
    own_bank = config is not None and config.audio.mel_bank == "computed"
    return lambda key: bool(COMPUTED.search(key)) or (own_bank and key.endswith(MEL_BANK))


def _upgraded(
    state: Mapping[str, Tensor], computed: Callable[[str], bool], report: LoadReport
) -> dict[str, Tensor]:
    """Bring keys of older fairseq files to today's names (reference behaviour); note what is left out."""
    given: dict[str, Tensor] = {}
    for key, value in state.items():
        joined = re.fullmatch(r"(.*\.)in_proj_(weight|bias)", key)
        if computed(key):
            report.skipped[key] = REBUILT
        elif "classification_heads." in key:
            report.skipped[key] = "classification head: answers are generated"
        elif joined:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                given[f"{joined[1]}{name}_proj.{joined[2]}"] = part
        else:
            given[key] = value
    return given


Grown = tuple[Tensor, str]  # the new tensor, and how it was made


def _with_type_rows(key: str, value: Tensor, like: Tensor) -> Grown | None:
    """Rows for the second image, or for each modality in place of one row for all."""
    more = like.size(0) - value.size(0) if like.dim() and value.dim() else 0
    if not key.endswith("type_embedding.weight") or value.size(0) not in (2, 4) or more < 1:
        return None
    return torch.cat([value, value[1:2].expand(more, -1)]), "new rows copy the image row"


def extend_table(key: str, value: Tensor, like: Tensor) -> Grown | None:
    """A smaller table in the size of the model's, or None where that makes no sense.

    New rows of tokens and positions are drawn from N(0, 1 / width) (reference behaviour) and come last;
    those of a larger image grid (``image_bucket_size``) come where the grid has them (the reference appends
    them, which moves every position).
    """
    if value.dim() != 2 or value.size(1) != like.size(1) or value.size(0) > like.size(0):
        return None
    rng = rng_for(0, 0, 0, "tokens" if key in TIED else key)  # tied tables get one draw
    drawn = torch.from_numpy(rng.standard_normal(tuple(like.shape)) * like.size(1) ** -0.5).to(value)
    if key in TIED or key.endswith((".embed_positions.weight",)):
        drawn[: value.size(0)] = value
        return drawn, "new rows at the end are drawn"
    if re.search(r"\.embed_(image|video|audio)_positions\.weight$", key):
        old, new = (math.isqrt(t.size(0) - 1) for t in (value, like))
        drawn[0] = value[0]
        drawn[1:].view(new, new, -1)[:old, :old] = value[1:].view(old, old, -1)
        return drawn, f"grid {old}x{old} in the corner of {new}x{new}, the rest is drawn"
    if "image_rel_pos_table_list." in key:
        old, new = (math.isqrt(t.size(0) - 3) for t in (value, like))
        fresh, at = like.detach().to(value), (new - old) // 2
        fresh[: new * new].view(new, new, -1)[at : at + old, at : at + old] = value[: old * old].view(
            old, old, -1
        )
        fresh[-3:] = value[-3:]
        return fresh, f"offsets up to {old // 2} of {new // 2}, the rest stays as initialised"
    return None
