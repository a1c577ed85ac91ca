"""Copying weights into a model: strict, with declared exceptions and a report that can be printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unival.errors import CheckpointError
from unival.modeling.inputs import MODALITIES
from unival.torchfile import State, load_torch, read_fairseq

TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
# Tables that construction computes from the options; a checkpoint's copies are never taken.
COMPUTED = re.compile(
    r"(token_rp_bucket|image_rp_bucket|image_position_idx|(encoder|decoder)\.version"
    r"|stft\.conv_(real|imag)\.weight)$"
)
BART_POSITION_SHIFT = 2  # fairseq's BART counts positions from padding_idx + 1
BART_TEXT_ROWS = 50264  # four specials and the BPE words; its <mask> is the last row


@dataclass
class LoadReport:
    """What :func:`load_into` did with every key that was not simply loaded."""

    loaded: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    @property
    def missing_keys(self) -> list[str]:
        return self.missing

    @property
    def unexpected_keys(self) -> list[str]:
        return self.unexpected

    def __str__(self) -> str:
        lines = [f"{self.loaded} tensors loaded"]
        for title, keys in (
            ("kept as initialised (not in the checkpoint)", self.missing),
            ("not used (not in the model)", self.unexpected),
            ("resized", self.resized),
        ):
            if keys:
                lines.append(f"{len(keys)} {title}: {_summary(keys)}")
        return "\n".join(lines)


def _summary(keys: Sequence[str], limit: int = 8) -> str:
    """Group keys by their first three parts: `encoder.embed_videos.* (624)`."""
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
    patterns = tuple(
        rf"^encoder\.(embed_{m}s\.|{m}_proj\.|layernorm_{m}_embedding\."
        + (r")" if m == "image" else rf"|embed_{m}_positions\.)")
        for m in MODALITIES
    )
    return patterns, patterns


@torch.no_grad()
def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> LoadReport:
    """Copy ``state`` into ``model``; strict but for the declared regular expressions.

    Computed tables are rebuilt, never taken. Tied keys may be given once. A type embedding with one row
    less than the model's (``second_image``) is extended by a copy of its visual row.
    Raises CheckpointError listing every key or shape that does not fit; the model is then unchanged.
    """
    own = model.state_dict(keep_vars=True)
    given = {k: v for k, v in state.items() if not COMPUTED.search(k)}
    for key in TIED:
        source = next((given[k] for k in TIED if k in given), None)
        if key in own and key not in given and source is not None:
            given[key] = source
    report = LoadReport()
    problems = []
    copies: list[tuple[Tensor, Tensor]] = []
    for key, tensor in own.items():
        if COMPUTED.search(key):
            continue
        if key not in given:
            report.missing.append(key)
            if not _matches(key, allow_missing):
                problems.append(f"missing {key} {tuple(tensor.shape)}")
            continue
        value = given[key]
        if value.shape != tensor.shape:
            grown = _grown(key, value, tensor)
            if grown is None:
                problems.append(f"{key}: checkpoint {tuple(value.shape)}, model {tuple(tensor.shape)}")
                continue
            report.resized.append(f"{key} {tuple(value.shape)} -> {tuple(tensor.shape)}")
            value = grown
        copies.append((tensor, value))
    for key in given:
        if key not in own:
            report.unexpected.append(key)
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
    report.loaded = len(copies)
    return report


def _grown(key: str, value: Tensor, like: Tensor) -> Tensor | None:
    if key.endswith("type_embedding.weight") and value.size(0) + 1 == like.size(0):
        return torch.cat([value, value[1:2]])
    return None


NETWORK_PREFIXES = ("module.", "sed_model.", "audio_branch.")


def load_network(network: nn.Module, path: str | Path) -> LoadReport:
    """Load a file of pretrained weights (timm, torchvision, Kinetics ResNeXt, PANN) into one network.

    Classifiers of the file are not used; every other key of the network must be there, except the mel
    filters and first norm when the number of bands differs (reference behaviour).
    Raises CheckpointError when the rest does not fit.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        content: Any = load_file(path)
    else:
        content = load_torch(path)
    for entry in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    state: State = {}
    for key, value in content.items():
        for prefix in NETWORK_PREFIXES:
            key = key.removeprefix(prefix)
        if isinstance(value, Tensor):
            state[key] = value
    own = network.state_dict()
    mel = "logmel_extractor.melW"
    bands_differ = mel in own and mel in state and state[mel].shape != own[mel].shape
    if bands_differ:
        state = {k: v for k, v in state.items() if not re.match(r"logmel_extractor|bn0", k)}
    # A classifier for other classes, or a stage that the three-stage network does not have.
    surplus = {k for k, v in state.items() if k not in own or v.shape != own[k].shape}
    state = {k: v for k, v in state.items() if k not in surplus or not k.startswith(("fc", "layer4"))}
    missing = [r"^fc\.", r"num_batches_tracked$"] + ([r"^(logmel_extractor|bn0)"] if bands_differ else [])
    return load_into(network, state, missing)


def load_bart(model: nn.Module, path: str | Path) -> LoadReport:
    """Start a model of the size of fairseq's bart.base from that file, as the first stage does.

    Text rows of the token table are taken one to one and <mask> from BART's last row; codes and bins keep
    their initial rows. Positions are taken from where BART counts them, two rows down.
    Raises CheckpointError when the sizes differ.
    """
    state = read_fairseq(path).model
    table = state.get("encoder.embed_tokens.weight")
    own = model.state_dict()
    rows = own["encoder.embed_tokens.weight"]
    if table is None or min(table.size(0), rows.size(0)) <= BART_TEXT_ROWS:
        raise CheckpointError(
            f"'{path}' or the model does not use the released vocabulary ({BART_TEXT_ROWS} rows of text)"
        )
    if table.size(1) != rows.size(1):
        raise CheckpointError(f"'{path}' has {table.size(1)} channels, the model {rows.size(1)}")
    mixed = rows.clone()
    mixed[:BART_TEXT_ROWS] = table[:BART_TEXT_ROWS]
    mixed[BART_TEXT_ROWS] = table[-1]
    taken: State = {"encoder.embed_tokens.weight": mixed}
    for key, value in state.items():
        if key.endswith("embed_positions.weight"):
            shifted = own[key].clone()
            count = min(value.size(0) - BART_POSITION_SHIFT, shifted.size(0))
            shifted[:count] = value[BART_POSITION_SHIFT : BART_POSITION_SHIFT + count]
            taken[key] = shifted
        elif key in own and key not in TIED:
            taken[key] = value
    return load_into(model, taken, allow_missing=(r".",))
