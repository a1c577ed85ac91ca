"""Where a number comes from: hashes of checkpoint and data, versions of the software."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from unival.errors import CheckpointError

# What a checkpoint folder is, its weights under one of two names; anything else in it (logs, results) is not the model.
CONFIG, WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
LIBRARIES = (
    "unival",
    "torch",
    "torchvision",
    "timm",
    "av",
    "soundfile",
    "librosa",
    "soxr",
    "Pillow",
    "numpy",
    "tokenizers",
)


def sha256(files: Iterable[str | os.PathLike[str]]) -> str:
    """SHA-256 of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a checkpoint: a file, or config (it names the vocabulary) and weights of a folder.

    Raises CheckpointError when it is absent.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        weights = next((name for name in WEIGHTS if (path / name).is_file()), WEIGHTS[0])
        files = [path / CONFIG, path / weights]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"checkpoint '{file}' does not exist")
    return sha256(files)


def table_hash(source: str | os.PathLike[str], files: Sequence[str]) -> str:
    """SHA-256 of a table's files, and of the description that selects its rows when ``source`` is one.

    Media files are not hashed.
    """
    described = os.path.isfile(source) and os.path.abspath(source) not in map(os.path.abspath, files)
    return sha256([source, *files] if described else files)


def versions() -> dict[str, str]:
    """Versions of the software that decides the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    from unival import __version__

    found = {"python": platform.python_version(), "unival": __version__}
    for name in LIBRARIES:
        try:
            found.setdefault(name, version(name))
        except PackageNotFoundError:
            continue
    return found
