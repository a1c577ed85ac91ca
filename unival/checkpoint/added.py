"""Small checkpoints: a folder with the weights that moved alone, loaded on top of the checkpoint they started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unival.core.provenance import file_hash
from unival.errors import CheckpointError

if TYPE_CHECKING:
    from unival.checkpoint.load import Loaded

BASE = "base"  # entry of config.json: {"path", "sha256"}


def save_added(folder: str | Path, loaded: Loaded, base: str | Path) -> Path:
    """Write a folder as :func:`unival.checkpoint.folder.save_folder` does, with only the weights that ``base`` does not
    have or has otherwise, and the path and SHA-256 of ``base``.

    Raises CheckpointError when ``base`` is absent or unreadable.
    """
    from unival.checkpoint.folder import save_folder
    from unival.checkpoint.load import read_weights

    theirs = read_weights(base)
    moved = {
        key
        for key, value in loaded.model.state_dict().items()
        if key not in theirs or theirs[key].shape != value.shape or not torch.equal(theirs[key], value)
    }
    about = {**loaded.about(), BASE: {"path": str(Path(base).resolve()), "sha256": file_hash(base)}}
    return save_folder(folder, loaded.model, loaded.vocabulary, loaded.prompts, about, only=moved)


def base_weights(folder: Path, meta: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the weights that those of a folder are laid over; none for a folder that holds all of its own.

    The base is looked for where it was, else beside the folder. Raises CheckpointError when it is not there or is
    another one.
    """
    from unival.checkpoint.load import read_weights

    if BASE not in meta:
        return {}
    named = Path(str(meta[BASE]["path"]))
    found = next((p for p in (named, folder.parent / named.name) if p.exists()), None)
    if found is None:
        raise CheckpointError(
            f"'{folder}' holds only what was added to '{named}', which is not there; put that checkpoint there or "
            f"beside '{folder}', or name its place in config.json (base, path)"
        )
    if file_hash(found) != meta[BASE]["sha256"]:
        raise CheckpointError(
            f"'{folder}' was trained on top of another '{found}': its SHA-256 is not the recorded "
            f"{str(meta[BASE]['sha256'])[:12]}...; put the checkpoint there that the training started from"
        )
    return read_weights(found)
