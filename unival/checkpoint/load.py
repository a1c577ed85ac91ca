"""Checkpoints: folders of our own, and models out of fairseq files (this project's, released ones)."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unival.checkpoint.identify import BART, family_of, ignored_paths, shown_options, size_of, trained_for
from unival.core.torchfile import FairseqFile, read_fairseq, read_header
from unival.errors import CheckpointError
from unival.modeling.config import ModelConfig
from unival.modeling.pretrained import load_bart, load_network
from unival.modeling.weights import (
    COMPUTED,
    TIED,
    LoadReport,
    load_into,
    modality_exceptions,
)

if TYPE_CHECKING:
    from unival.modeling.model import UnIVAL
    from unival.vocabulary.vocabulary import Vocabulary

__all__ = [
    "FairseqFile",
    "LoadReport",
    "Loaded",
    "config_of",
    "load_bart",
    "load_checkpoint",
    "load_folder",
    "load_into",
    "load_network",
    "modality_exceptions",
    "new_folder",
    "read_fairseq",
    "read_header",
    "save_folder",
    "vocabulary_for",
    "write_config",
]

CONFIG, WEIGHTS, FORMAT = "config.json", "model.safetensors", 1
CODES_AND_BINS = {"num_codes": "code_dict_size", "num_bins": "num_bins"}  # arguments in released files
HEADS = (r"^classification_heads\.",)  # OFA files of other tasks hold them; answers here are generated


@dataclass
class Loaded:
    """A model ready to use, with what its checkpoint says about it.

    ``weights`` is "raw" or "ema"; ``prompts`` are replaced templates; ``task`` has name and modality;
    ``decoding`` has mode and settings of the task's validation; ``family``: unival.checkpoint.identify.
    """

    model: UnIVAL
    vocabulary: Vocabulary
    weights: str
    prompts: dict[str, str]
    task: dict[str, Any]
    task_options: dict[str, Any]
    meta: dict[str, Any]
    decoding: dict[str, Any] = field(default_factory=dict)
    family: str = "ours"

    def kept_options(self) -> dict[str, Any]:
        """Return the task options and prompts of the checkpoint, by name.

        Options that this version does not know (a newer one wrote the file) are left out.
        """
        from unival.specs import SpecOptions

        known = {f.name for f in fields(SpecOptions)}
        kept = {name: value for name, value in self.task_options.items() if name in known}
        return {**kept, "prompts": self.prompts} if self.prompts else kept

    def about(self) -> dict[str, Any]:
        """Return what a folder of this model keeps beside model and vocabulary."""
        about = {
            "weights": self.weights,
            "family": self.family,
            "task": self.task,
            "task_options": self.task_options,
            "decoding": self.decoding,
        }
        return {**about, "lineage": self.meta["lineage"]} if "lineage" in self.meta else about


def save_folder(
    folder: str | Path,
    model: UnIVAL,
    vocabulary: Vocabulary,
    prompts: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write config.json, model.safetensors and the vocabulary files, all or nothing.

    ``extra`` joins config.json; ``files`` are further text files by name.
    Everything is written beside ``folder`` and moved into place, so a kill leaves the old one or the new one.
    """
    from safetensors.torch import save_file

    if len(vocabulary) != model.config.vocab_size:
        raise CheckpointError(
            f"the vocabulary has {len(vocabulary)} tokens, the model {model.config.vocab_size}; "
            "save a model with its own vocabulary"
        )
    meta = {
        "format": FORMAT,
        "model": model.config.to_dict(),
        "vocabulary": vocabulary.fingerprint(),
        "prompts": dict(prompts or {}),
        **(extra or {}),
    }
    state = model.state_dict()
    tied = [k for k in TIED[1:] if state[k].data_ptr() == state[TIED[0]].data_ptr()]
    names = [k for k in state if k not in tied and not COMPUTED.search(k)]
    kept = {k: state[k].detach().cpu().contiguous() for k in names}
    with new_folder(folder) as temporary:
        save_file(kept, temporary / WEIGHTS, metadata={"format": "pt"})
        vocabulary.save(temporary)
        write_config(temporary, meta)
        for name, text in (files or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
    return Path(folder)


def write_config(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write the config.json of a checkpoint folder."""
    (folder / CONFIG).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a folder to write a checkpoint into, which then takes the place of ``folder``, all or nothing.

    Raises CheckpointError when ``folder`` holds something other than a checkpoint.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not (folder / CONFIG).exists() and any(folder.iterdir()):
        raise CheckpointError(f"'{folder}' exists and is not a checkpoint; choose another folder")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        os.chmod(temporary, 0o755)
        _swap_in(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap_in(new: Path, place: Path) -> None:
    """Move ``new`` to ``place``; what was there ends up in ``new``'s name, to be removed.

    Linux can exchange two folders in one step; elsewhere there is an instant with neither in place.
    """
    if not place.exists():
        os.replace(new, place)
        return
    if sys.platform == "linux":
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        rename = getattr(ctypes.CDLL(None), "renameat2", None)
        if rename is not None and rename(here, os.fsencode(new), here, os.fsencode(place), exchange) == 0:
            return
    aside = new.with_name(new.name + "-old")
    os.replace(place, aside)
    os.replace(new, place)
    os.replace(aside, new)


def load_folder(folder: str | Path) -> tuple[UnIVAL, Vocabulary, dict[str, Any]]:
    """Read what :func:`save_folder` wrote: model in evaluation mode, vocabulary, contents of config.json.

    Raises CheckpointError for a missing or damaged file, or a vocabulary that is not the model's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from unival.modeling.build import build_from_config
    from unival.modeling.undrawn import Undrawn
    from unival.vocabulary.vocabulary import Vocabulary

    folder = Path(folder)
    try:
        meta = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = ModelConfig.from_dict(meta["model"])
        if meta["format"] > FORMAT:
            raise CheckpointError(f"'{folder}' was written by a newer version (format {meta['format']})")
        state = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        missing = error.filename or WEIGHTS
        raise CheckpointError(f"'{folder}' is not a complete checkpoint: '{missing}' is missing") from None
    except (json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint '{folder}' is damaged: {error}") from None
    vocabulary = Vocabulary.load(folder)
    if vocabulary.fingerprint() != meta.get("vocabulary"):
        raise CheckpointError(f"the vocabulary in '{folder}' is not the one the model was saved with")
    with Undrawn():
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
    args = {**file.args, **shown_options(state)}
    for modality in ("video", "audio"):
        if not any(k.startswith(f"encoder.embed_{modality}s.") for k in state):
            args.pop(f"{modality}_encoder_name", None)
    stages = {k.split(".")[2] for k in state if k.startswith("encoder.embed_images.")}
    args["image_encoder_name"] = "timm_resnet" if "layer4" in stages else "resnet" if stages else "none"
    grid = state.get("decoder.image_position_idx")
    if grid is not None:
        from unival.modeling.position import CODE_FILLERS

        args["code_image_size"] = 8 * round((grid.numel() - 1 - CODE_FILLERS) ** 0.5)
    return ModelConfig.from_reference(args, vocab_size=table.size(0))


def vocabulary_for(path: str | Path, bpe_dir: str | Path | None = None) -> Vocabulary | None:
    """Return the vocabulary to read a released file with, None for checkpoints that carry their own.

    It is read from ``bpe_dir``, by default the folder ``bpe`` below UNIVAL_WEIGHTS. Raises CheckpointError.
    """
    from unival.core.paths import root
    from unival.vocabulary.vocabulary import Vocabulary

    if Path(path).is_dir():
        return None
    header = read_header(path)
    if "vocabulary" in header["task_state"].get("unival", {}):
        return None
    folder = Path(bpe_dir) if bpe_dir is not None else root("UNIVAL_WEIGHTS") / "bpe"
    if not (folder / "dict.txt").is_file():
        raise CheckpointError(
            f"'{path}' carries no vocabulary, and there is none in '{folder}': give the folder of the released BPE "
            "files (dict.txt, encoder.json, vocab.bpe) with bpe_dir"
        )
    counts = {name: header["args"].get(saved) for name, saved in CODES_AND_BINS.items()}
    return Vocabulary.load(
        folder, **{name: int(value) for name, value in counts.items() if value is not None}
    )


def load_checkpoint(path: str | Path, weights: str = "auto", vocabulary: Vocabulary | None = None) -> Loaded:
    """Load a folder of ours or a fairseq file into a model in evaluation mode.

    ``weights``: "raw", "ema", or "auto" (averaged when the file has them). ``vocabulary`` is needed for
    released files, which carry none. Raises CheckpointError.
    """
    from unival.modeling.build import build_from_config
    from unival.modeling.undrawn import Undrawn
    from unival.vocabulary.vocabulary import Vocabulary as _Vocabulary

    path = Path(path)
    if path.is_dir():
        model, own, meta = load_folder(path)
        kind = meta.get("weights", "raw")
        if weights != "auto" and weights != kind:
            raise CheckpointError(f"'{path}' holds {kind} weights, not {weights}")
        task, options = meta.get("task", {}), meta.get("task_options", {})
        kept = meta.get("decoding", {}), meta.get("family", "ours")
        return Loaded(model, own, kind, meta.get("prompts", {}), task, options, meta, *kept)
    file = read_fairseq(path)
    family = family_of(file)
    if family == BART:
        raise CheckpointError(
            f"'{path}' is fairseq's BART, a model of text alone: stage 1 of pretraining starts from it "
            "(--init-from), and it cannot be used as it is"
        )
    state, kind = file.weights(weights)
    if vocabulary is None:
        if "vocabulary" not in file.task_state.get("unival", {}):
            raise CheckpointError(f"'{path}' carries no vocabulary; give the folder of its BPE files")
        vocabulary = _Vocabulary.from_dict(file.task_state["unival"]["vocabulary"])
    config = config_of(file, state)
    if len(vocabulary) != config.vocab_size:
        raise CheckpointError(
            f"'{path}' has {config.vocab_size} tokens, the vocabulary {len(vocabulary)}; give the file's own"
        )
    with Undrawn():
        model = build_from_config(config)
    report = load_into(model, state, allow_unexpected=HEADS)
    meta = {
        "report": str(report),
        "path": str(path),
        "extra": file.extra,
        "size": size_of(config),
        "ignored": ignored_paths(file),
    }
    ours = file.task_state.get("unival", {})
    if "lineage" in ours:
        meta["lineage"] = ours["lineage"]
    if file.ema is None:
        kind = ours.get("weights", kind)  # an exported file holds one set of weights and says which
    trained = trained_for(file, family)
    return Loaded(
        model.eval(),
        vocabulary,
        kind,
        trained.prompts,
        trained.task,
        trained.options,
        meta,
        trained.decoding,
        ours.get("family", family),
    )
