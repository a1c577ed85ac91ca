"""Checkpoint folders of our own: config.json, model.safetensors and the vocabulary, written all or nothing."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.checkpoint.added import base_weights
from unival.core.checksum import KEY, RESERVED, seal, verify
from unival.core.files import check_folder, make_folder, writing
from unival.core.foreign import mistaken_for
from unival.errors import CheckpointError, ConfigError, said
from unival.modeling.config import ModelConfig
from unival.modeling.weights import COMPUTED, TIED, load_into

if TYPE_CHECKING:
    from unival.modeling.model import UnIVAL
    from unival.vocabulary.vocabulary import Vocabulary

CONFIG, WEIGHTS, FORMAT = "config.json", "model.safetensors", 1
MOST_CONFIG = 64 << 20  # bytes of a config.json


def save_folder(
    folder: str | Path,
    model: UnIVAL,
    vocabulary: Vocabulary,
    prompts: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
) -> Path:
    """Write config.json, model.safetensors and the vocabulary files, all or nothing.

    ``extra`` joins config.json; ``files`` are further text files by name; ``only``: weights to write, not all.
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
    names = [k for k in state if k not in tied and not COMPUTED.search(k) and (only is None or k in only)]
    kept = {k: state[k].detach().cpu().contiguous() for k in names}
    with new_folder(folder) as temporary:
        save_file(kept, temporary / WEIGHTS, metadata={"format": "pt", KEY: RESERVED})
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
    folder = Path(os.path.realpath(folder))  # a link stays one
    check_folder(folder)
    if folder.exists() and not (folder / CONFIG).exists() and any(folder.iterdir()):
        raise CheckpointError(f"'{folder}' exists and is not a checkpoint; choose another folder")
    temporary = make_folder(folder.with_name(f".{folder.name[:40]}-{secrets.token_hex(6)}"))
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        with writing(folder, temporary):
            yield temporary
            for file in temporary.iterdir():
                if file.suffix == ".safetensors":
                    seal(file)
                os.chmod(file, mode & 0o666)  # some libraries write for the owner alone
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
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
    meta = read_config(folder)
    try:
        verify(folder / WEIGHTS)
        state = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise CheckpointError(f"'{folder}' is not a complete checkpoint: '{WEIGHTS}' is missing") from None
    except SafetensorError as error:
        what = mistaken_for(folder / WEIGHTS) or f"is damaged: {said(error)}"
        raise CheckpointError(f"checkpoint '{folder}': {WEIGHTS} {what}") from None
    vocabulary = Vocabulary.load(folder)
    if vocabulary.fingerprint() != meta.get("vocabulary"):
        raise CheckpointError(f"the vocabulary in '{folder}' is not the one the model was saved with")
    with Undrawn():
        model = build_from_config(config_in(meta))
    load_into(model, {**base_weights(folder, meta), **state})
    return model.eval(), vocabulary, meta


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the config.json of a checkpoint folder.

    Raises CheckpointError when it is absent, damaged, or of a newer version.
    """
    path = Path(folder) / CONFIG
    try:
        if path.stat().st_size > MOST_CONFIG:
            raise CheckpointError(
                f"checkpoint '{folder}' is damaged: {CONFIG} is larger than {MOST_CONFIG:,} bytes"
            )
        meta = json.loads(path.read_text(encoding="utf-8"))
        config_in(meta)
        newer = meta["format"] > FORMAT
    except (FileNotFoundError, NotADirectoryError):
        runs = sorted(Path(folder).glob("checkpoint_*.pt"))
        best = next((run for run in runs if run.name == "checkpoint_best.pt"), runs[-1] if runs else None)
        hint = "" if best is None else f" (it is the folder of a run; did you mean '{best}'?)"
        raise CheckpointError(
            f"'{folder}' is not a complete checkpoint: '{CONFIG}' is missing{hint}"
        ) from None
    except (
        ConfigError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        what = mistaken_for(path) if isinstance(error, json.JSONDecodeError) else None
        said_ = what if what and "text" not in what else said(error)
        raise CheckpointError(f"checkpoint '{folder}' is damaged: {CONFIG}: {said_}") from None
    if newer:
        raise CheckpointError(f"'{folder}' was written by a newer version (format {meta['format']})")
    return meta


def config_in(meta: Mapping[str, Any]) -> ModelConfig:
    """Return the model configuration in the contents of a config.json."""
    return ModelConfig.from_dict(meta["model"])
