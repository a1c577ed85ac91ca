"""What must be equal before weights may be merged; everything that is not is listed and refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unival.checkpoint.lineage import RELATED, cosine, strangers
from unival.core.modalities import NAMES
from unival.errors import CheckpointError
from unival.merge.source import Source
from unival.merge.tensorfile import Spec
from unival.modeling.config import FreezeConfig, ModelConfig, option_fields
from unival.modeling.weights import modality_exceptions
from unival.specs import SPECS

# Options that decide how a model trains or where its start came from, not what its weights mean.
TRAINING = re.compile(
    r"dropout$|_rate$|^checkpoint_activations$|^sync_bn$|^sample_|_model_path$|_weights$|^unfreeze$"
)
LISTED = 20


@dataclass(frozen=True)
class Plan:
    """Weights of the result: shape and type of each, and the models that have it."""

    specs: dict[str, Spec]
    owners: dict[str, tuple[int, ...]]
    config: ModelConfig


def plan(sources: Sequence[Source], names: Sequence[str], only_some: str) -> Plan:
    """Compare the models and return what the result consists of.

    Raises CheckpointError listing every difference in vocabulary, prompts, architecture, keys and shapes;
    modality networks that only some models have are dealt with as ``only_some`` says.
    """
    problems = [*_vocabularies(sources, names), *_prompts(sources, names), *_options(sources, names)]
    problems += _own_networks(sources, names, only_some)
    modules = [re.compile(pattern) for pattern in modality_exceptions(nn.Module())[0]]
    specs: dict[str, Spec] = {}
    owners: dict[str, tuple[int, ...]] = {}
    partial: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for source in sources for key in source.specs):
        having = tuple(k for k, source in enumerate(sources) if key in source.specs)
        shapes = {names[k]: sources[k].specs[key].shape for k in having}
        if len(set(shapes.values())) > 1:
            problems.append(f"{key}: shapes {', '.join(f'{n} {s}' for n, s in shapes.items())}")
        elif len(having) < len(sources):
            lacking = ", ".join(name for k, name in enumerate(names) if k not in having)
            if not any(module.search(key) for module in modules):
                problems.append(f"{key}: not in {lacking}")
            elif only_some == "refuse":
                partial.setdefault(f"{_network(key)} (not in {lacking})", []).append(key)
            elif only_some == "drop":
                continue
        specs[key], owners[key] = sources[having[0]].specs[key], having
    for network, keys in partial.items():
        problems.append(
            f"{len(keys)} weights of {network}: set 'only_some: keep' to merge them over the models that have "
            "them, or 'only_some: drop' to leave them out"
        )
    if problems:
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        listed = "\n  ".join(problems[:LISTED] + more)
        raise CheckpointError(f"the models cannot be merged, {len(problems)} differences:\n  {listed}")
    return Plan(specs, owners, _config(sources, only_some))


def check_base(base: Source, sources: Sequence[Source], made: Plan) -> None:
    """The ancestor must have every weight of the result in the same shape. Raises CheckpointError."""
    problems = [
        f"{key}: {base.specs[key].shape if key in base.specs else 'absent'}, the models {spec.shape}"
        for key, spec in made.specs.items()
        if key not in base.specs or base.specs[key].shape != spec.shape
    ]
    if base.vocabulary.fingerprint() != sources[0].vocabulary.fingerprint():
        problems.insert(0, "the vocabulary is another one")
    if problems:
        listed = "\n  ".join(problems[:LISTED])
        raise CheckpointError(
            f"base '{base.path}' does not fit the models, {len(problems)} differences:\n  {listed}"
        )


def ancestry_warnings(sources: Sequence[Source], names: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Say which models share no ancestor, by recorded lineage, or by weight distance where there is none.

    A model counts as its own ancestor, so that a model and its finetuned successor are related.
    """
    lines = [
        None if (line := source.header.lineage) is None else [*line, digest]
        for source, digest in zip(sources, hashes, strict=True)
    ]
    warnings = [
        f"{names[i]} and {names[j]} have no recorded ancestor in common: their weights need not fit together"
        for i, j in strangers(names, lines)
    ]
    for k in range(1, len(sources)):
        if lines[0] is not None and lines[k] is not None:
            continue
        shared = [key for key in sources[0].specs if key in sources[k].specs]
        found = cosine(sources[0].read, sources[k].read, shared)
        if found < RELATED:
            warnings.append(
                f"the weights of {names[0]} and {names[k]} point in different directions (cosine {found:.2f}; models "
                f"of one ancestor are above {RELATED}): an average is hardly better than random weights"
            )
    return warnings


def _vocabularies(sources: Sequence[Source], names: Sequence[str]) -> list[str]:
    prints = [source.vocabulary.fingerprint() for source in sources]
    return [
        f"vocabulary: {names[k]} has another one ({prints[k][:12]}) than {names[0]} ({prints[0][:12]})"
        for k in range(1, len(sources))
        if prints[k] != prints[0]
    ]


def _prompts(sources: Sequence[Source], names: Sequence[str]) -> list[str]:
    found: dict[str, dict[str, list[str]]] = {}
    for source, name in zip(sources, names, strict=True):
        for prompt, text in source.header.all_prompts.items():
            found.setdefault(prompt, {}).setdefault(text, []).append(name)
    return [
        f"prompt '{prompt}': " + ", ".join(f"'{text}' in {', '.join(who)}" for text, who in texts.items())
        for prompt, texts in found.items()
        if len(texts) > 1
    ]


def _own_networks(sources: Sequence[Source], names: Sequence[str], only_some: str) -> list[str]:
    """Models whose task needs a network that no file holds, or that the result would lose."""
    problems = []
    for source, name in zip(sources, names, strict=True):
        trained = source.header.task
        task, modality = trained.get("name"), trained.get("modality")
        if task not in SPECS or task == "pretrain" or not SPECS[task].reads_media or modality is None:
            continue  # rows of pretraining say themselves what they have
        lacking = [other for other, s in zip(names, sources, strict=True) if not _has(s, modality)]
        if not _has(source, modality):
            problems.append(
                f"{name} was trained for {task} of {modality}, and its file has no {modality} network"
            )
        elif lacking and only_some == "drop":
            problems.append(
                f"'only_some: drop' would leave out the {modality} network, which the task of {name} needs: "
                f"{', '.join(lacking)} has none; set 'only_some: keep'"
            )
    return problems


def _options(sources: Sequence[Source], names: Sequence[str]) -> list[str]:
    """Differences in the options that decide what the weights mean, the shapes being equal."""
    ignored = set(FreezeConfig.__dataclass_fields__)
    lacking = {m for m in NAMES for s in sources if not _has(s, m)}
    problems = []
    for field in option_fields():
        if field.name in ignored or TRAINING.search(field.name) or _modality_of(field.name) in lacking:
            continue
        values = [source.config.options()[field.name] for source in sources]
        if any(value != values[0] for value in values):
            shown = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
            problems.append(f"option {field.name}: {shown}")
    return problems


def _modality_of(option: str) -> str | None:
    """The modality whose network an option is about; None for all others."""
    if option in ("mel_bins", "hop_size"):
        return "audio"
    if option == "video_frame_positions":
        return "video"
    if option in ("resnet_type", "image_backbone", "image_backbone_stride"):
        return "image"
    return next((m for m in NAMES if option in (f"{m}_encoder_name", f"layernorm_{m}_embedding")), None)


def _has(source: Source, modality: str) -> bool:
    return f"encoder.{modality}_proj.weight" in source.specs


def _network(key: str) -> str:
    return ".".join(key.split(".")[:2])


def _config(sources: Sequence[Source], only_some: str) -> ModelConfig:
    """The first model's configuration with the modality networks of the result."""
    options: dict[str, object] = {}
    for modality in NAMES:
        having = [source for source in sources if _has(source, modality)]
        if not having or (only_some == "drop" and len(having) < len(sources)):
            options[f"{modality}_encoder_name"] = "none" if modality == "image" else None
            if modality == "image":
                options |= dict.fromkeys(("image_backbone", "image_backbone_stride"))
        else:
            theirs = having[0].config.options()
            options.update({k: v for k, v in theirs.items() if _modality_of(k) == modality})
    return sources[0].config.replace(**options)
