"""Checkpoints: our folders, fairseq files of this project and released ones, network files, BART.

Files are read with torch's weights-only loader and an allow-list: no code in a file is ever run.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unival.config import ModelConfig
from unival.errors import CheckpointError
from unival.modeling.inputs import MODALITIES

if TYPE_CHECKING:
    from unival.modeling.model import UnIVAL
    from unival.vocabulary import Vocabulary

State = dict[str, Tensor]

CONFIG, WEIGHTS, FORMAT = "config.json", "model.safetensors", 1
TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
# Tables that construction computes from the options; a checkpoint's copies are never taken.
COMPUTED = re.compile(
    r"(token_rp_bucket|image_rp_bucket|image_position_idx|(encoder|decoder)\.version|stft\.conv_(real|imag)\.weight)$"
)
BART_POSITION_SHIFT = 2  # fairseq's BART counts positions from padding_idx + 1
BART_TEXT_ROWS = 50264  # four specials and the BPE words; its <mask> is the last row


class _Inert:
    """Stands in for a foreign class: keeps the state it is given, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def _inert(name: str) -> tuple[Any, str]:
    return type(name.rpartition(".")[2], (_Inert,), {}), name


FOREIGN = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "fairseq.data.dictionary.Dictionary",
    "fairseq.meters.AverageMeter",
    "fairseq.logging.meters.AverageMeter",
    "fairseq.meters.TimeMeter",
    "fairseq.meters.StopwatchMeter",
    "typing.Any",
)


def _allowed() -> list[Any]:
    import collections

    import numpy as np

    plain: list[Any] = [
        argparse.Namespace,
        collections.defaultdict,
        collections.OrderedDict,
        dict,
        list,
        int,
        float,
    ]
    plain += [np.dtype, np.ndarray, *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQfd"}]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        rebuild = getattr(np, "_core", None) or np.core
        plain += [(getattr(rebuild.multiarray, f), f"{module}.{f}") for f in ("scalar", "_reconstruct")]
    return plain + [_inert(name) for name in FOREIGN]


def _load(path: str | Path) -> Any:
    """Read a torch file without running code. Raises CheckpointError for anything else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist")
    with torch.serialization.safe_globals(_allowed()):
        try:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:  # the format before zip files cannot be mapped
                if "mmap" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)|global (\S+)|class (\S+)", str(error))
            what = next((g for g in found.groups() if g), "") if found else str(error).splitlines()[0]
            raise CheckpointError(
                f"'{path}' holds '{what}', which is not on the list of types a checkpoint may hold; "
                "it was not run. Convert the file where it was written, keeping tensors and plain values only."
            ) from None
        except (RuntimeError, EOFError, OSError, ValueError, AssertionError) as error:
            raise CheckpointError(f"'{path}' is not a readable checkpoint: {error}") from None


def _plain(value: Any) -> Any:
    """Turn namespaces and inert stand-ins into dictionaries and lists."""
    if isinstance(value, argparse.Namespace):
        return {k: _plain(v) for k, v in vars(value).items()}
    if isinstance(value, _Inert):
        content = vars(value).get("_content", vars(value).get("_val"))
        return _plain(content)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


@dataclass
class FairseqFile:
    """Contents of a fairseq checkpoint as plain values.

    ``args`` holds the options of model and task in one dictionary, ``extra`` epoch and counters.
    """

    path: str
    model: State
    ema: State | None
    args: dict[str, Any]
    task_state: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def arch(self) -> str | None:
        return self.args.get("arch")

    def weights(self, which: str = "auto") -> tuple[State, str]:
        """Return the state to use and its name. "auto" takes the averaged weights when there are some."""
        if which not in ("auto", "raw", "ema"):
            raise CheckpointError(f"unknown weights '{which}'; choose auto, raw or ema")
        if which == "ema" and self.ema is None:
            raise CheckpointError(f"'{self.path}' holds no averaged (EMA) weights; use raw")
        if which == "raw" or self.ema is None:
            return self.model, "raw"
        return {**self.model, **self.ema}, "ema"


def read_fairseq(path: str | Path) -> FairseqFile:
    """Read a fairseq ``.pt``: this project's, a released UnIVAL or OFA file, or bart.base.

    Tensors are mapped from the file, not copied. Raises CheckpointError when the file is absent, damaged,
    not a fairseq checkpoint, or holds foreign types.
    """
    content = _load(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise CheckpointError(f"'{path}' is not a fairseq checkpoint: it has no entry 'model'")
    config = _plain(content.get("cfg")) or {}
    args: dict[str, Any] = dict(_plain(content.get("args")) or {})
    for part in ("task", "model"):
        args.update(config.get(part) or {})
    extra = _plain({k: v for k, v in (content.get("extra_state") or {}).items() if not k.startswith("ema")})
    averaged = (content.get("extra_state") or {}).get("ema")
    masters = (content.get("extra_state") or {}).get("ema_fp32_params") or {}
    ema = {**averaged, **masters} if averaged else None
    return FairseqFile(
        path=str(path),
        model=dict(content["model"]),
        ema=ema,
        args=args,
        task_state=_plain(content.get("task_state")) or {},
        extra=extra,
    )


def read_header(path: str | Path) -> dict[str, Any]:
    """Return {"arch", "args", "task_state"} of a fairseq file without reading its weights into memory."""
    file = read_fairseq(path)
    return {"arch": file.arch, "args": file.args, "task_state": file.task_state}


# --- loading into a model --------------------------------------------------------------------------------


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
        shown = "\n  ".join(problems[:20]) + (
            f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        )
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
        content = _load(path)
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
    stem = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    classifier = [
        k for k, v in state.items() if k not in stem and k.startswith(("fc", "layer4", "conv_block"))
    ]
    state = {k: v for k, v in state.items() if k in stem or k not in classifier}
    missing = (r"^fc\.", r"num_batches_tracked$") + ((r"^(logmel_extractor|bn0)",) if bands_differ else ())
    return load_into(network, state, missing, (r"^fc", r"spectrogram_extractor", r"^(ast|head|global_pool)"))


def load_bart(model: UnIVAL, path: str | Path) -> LoadReport:
    """Start a model of 768 channels and 6+6 layers from fairseq's bart.base, as the first pretraining stage does.

    Text rows of the token table are taken one to one and <mask> from BART's last row; codes and bins keep
    their initial rows. Positions are taken from where BART counts them, two rows down.
    Raises CheckpointError when the sizes differ.
    """
    state = read_fairseq(path).model
    table = state.get("encoder.embed_tokens.weight")
    own = model.state_dict()
    rows = own["encoder.embed_tokens.weight"]
    if table is None or table.size(0) <= BART_TEXT_ROWS or rows.size(0) <= BART_TEXT_ROWS:
        raise CheckpointError(
            f"'{path}' or the model does not use the released vocabulary of {BART_TEXT_ROWS} rows"
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


# --- folders ---------------------------------------------------------------------------------------------


@dataclass
class Loaded:
    """A model ready to use, with what its checkpoint says about it. ``weights`` is "raw" or "ema"."""

    model: UnIVAL
    vocabulary: Vocabulary
    weights: str
    prompts: dict[str, str]
    task: dict[str, Any]
    task_options: dict[str, Any]
    meta: dict[str, Any]


def save_folder(
    folder: str | Path,
    model: UnIVAL,
    vocabulary: Vocabulary,
    prompts: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write config.json, model.safetensors and the vocabulary files, all or nothing.

    Everything is written beside ``folder`` and moved into place, so a kill leaves the old one or the new one.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if len(vocabulary) != model.config.vocab_size:
        raise CheckpointError(
            f"the vocabulary has {len(vocabulary)} tokens, the model {model.config.vocab_size}: they do not belong together"
        )
    if folder.exists() and not (folder / CONFIG).exists() and any(folder.iterdir()):
        raise CheckpointError(f"'{folder}' exists and is not a checkpoint; choose another folder")
    meta = {
        "format": FORMAT,
        "model": model.config.to_dict(),
        "vocabulary": vocabulary.fingerprint(),
        "prompts": dict(prompts or {}),
        **(extra or {}),
    }
    state = model.state_dict()
    tied = [k for k in TIED[1:] if state[k].data_ptr() == state[TIED[0]].data_ptr()]
    kept = {
        k: v.detach().cpu().contiguous() for k, v in state.items() if k not in tied and not COMPUTED.search(k)
    }
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_file(kept, temporary / WEIGHTS, metadata={"format": "pt"})
        vocabulary.save(temporary)
        (temporary / CONFIG).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        os.chmod(temporary, 0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, old)
            os.replace(temporary, folder)
            shutil.rmtree(old)
        else:
            os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def load_folder(folder: str | Path) -> tuple[UnIVAL, Vocabulary, dict[str, Any]]:
    """Read what :func:`save_folder` wrote: model in evaluation mode, vocabulary, contents of config.json.

    Raises CheckpointError for a missing or damaged file, or a vocabulary that is not the model's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from unival.modeling.build import build_from_config
    from unival.vocabulary import Vocabulary

    folder = Path(folder)
    try:
        meta = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = ModelConfig.from_dict(meta["model"])
        if meta["format"] > FORMAT:
            raise CheckpointError(f"'{folder}' was written by a newer version (format {meta['format']})")
        state = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"'{folder}' is not a complete checkpoint: '{error.filename or WEIGHTS}' is missing"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint '{folder}' is damaged: {error}") from None
    vocabulary = Vocabulary.load(folder)
    if vocabulary.fingerprint() != meta.get("vocabulary"):
        raise CheckpointError(f"the vocabulary in '{folder}' is not the one the model was saved with")
    model = build_from_config(config)
    load_into(model, state)
    return model.eval(), vocabulary, meta


def config_of(file: FairseqFile, state: Mapping[str, Tensor]) -> ModelConfig:
    """Return the model configuration of a fairseq file.

    What the weights show (vocabulary size, modalities, code grid) is read off them, since saved arguments
    of released files name networks and paths that the weights may not have.
    """
    table = state.get(TIED[0])
    if table is None:
        raise CheckpointError(f"'{file.path}' has no token table: it is not a model of this project")
    args = dict(file.args)
    for modality, none in (("image", "none"), ("video", None), ("audio", None)):
        if not any(k.startswith(f"encoder.embed_{modality}s.") for k in state):
            args.pop(f"{modality}_encoder_name", None)
            if none:
                args["image_encoder_name"] = none
    grid = state.get("decoder.image_position_idx")
    if grid is not None:
        from unival.modeling.position import CODE_FILLERS

        args["code_image_size"] = 8 * round((grid.numel() - 1 - CODE_FILLERS) ** 0.5)
    return ModelConfig.from_reference(args, vocab_size=table.size(0))


def load_checkpoint(path: str | Path, weights: str = "auto", vocabulary: Vocabulary | None = None) -> Loaded:
    """Load a folder of ours or a fairseq file into a model in evaluation mode.

    ``weights``: "raw", "ema", or "auto" (averaged when the file has them). ``vocabulary`` is needed for
    released files, which carry none. Raises CheckpointError.
    """
    from unival.modeling.build import build_from_config
    from unival.vocabulary import Vocabulary as _Vocabulary

    path = Path(path)
    if path.is_dir():
        model, own, meta = load_folder(path)
        kind = meta.get("weights", "raw")
        if weights != "auto" and weights != kind:
            raise CheckpointError(f"'{path}' holds {kind} weights, not {weights}")
        return Loaded(
            model,
            own,
            kind,
            meta.get("prompts", {}),
            meta.get("task", {}),
            meta.get("task_options", {}),
            meta,
        )
    file = read_fairseq(path)
    state, kind = file.weights(weights)
    ours = file.task_state.get("unival", {})
    if vocabulary is None:
        if "vocabulary" not in ours:
            raise CheckpointError(f"'{path}' carries no vocabulary; give the folder of its BPE files")
        vocabulary = _Vocabulary.from_dict(ours["vocabulary"])
    config = config_of(file, state)
    if len(vocabulary) != config.vocab_size:
        raise CheckpointError(
            f"'{path}' has {config.vocab_size} tokens, the vocabulary {len(vocabulary)}: they do not belong together"
        )
    model = build_from_config(config)
    report = load_into(model, state)
    meta = {"report": str(report), "path": str(path), "extra": file.extra}
    prompts = ours.get("prompts", {})
    return Loaded(
        model.eval(), vocabulary, kind, prompts, ours.get("task", {}), ours.get("options", {}), meta
    )
