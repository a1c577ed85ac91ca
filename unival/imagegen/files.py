"""Pictures on disk, under names that no id or caption can abuse."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unival.core.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

ALL, BEST = "all_results", "top1"
_KEPT, _DIGITS = 48, 10


def safe_name(identifier: str) -> str:
    """A file name of at most 60 characters for any id: readable ASCII, then a hash that tells ids apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", identifier)[:_KEPT].strip("_-")
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{plain}-{digest}" if plain else digest


def write_pictures(folder: str | Path, identifier: str, pictures: Sequence[Image], best: int) -> str:
    """Write all pictures of a row and the best one as PNG; returns the best one's absolute path."""
    name = safe_name(identifier)
    for place, picture in enumerate(pictures):
        _write(picture, Path(folder) / ALL / f"{name}_{place}.png")
    file = Path(folder).absolute() / BEST / f"{name}.png"
    _write(pictures[best], file)
    return str(file)


def _write(picture: Image, path: Path) -> None:
    with replacing(path) as part:
        picture.save(part, format="PNG")
