"""Checkpoints: reading every layout, folders of our own, export, conversion, downloads.

Every name below is loaded on first use, so that the program starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unival.checkpoint.folder import FORMAT as FORMAT
    from unival.checkpoint.folder import load_folder as load_folder
    from unival.checkpoint.folder import save_folder as save_folder
    from unival.checkpoint.header import Header as Header
    from unival.checkpoint.load import Loaded as Loaded
    from unival.checkpoint.load import load_checkpoint as load_checkpoint
    from unival.core.torchfile import read_fairseq as read_fairseq
    from unival.core.torchfile import read_header as read_header
    from unival.modeling.pretrained import load_bart as load_bart
    from unival.modeling.pretrained import load_network as load_network
    from unival.modeling.weights import load_into as load_into
    from unival.modeling.weights import modality_exceptions as modality_exceptions

_HOME = {
    "FORMAT": "unival.checkpoint.folder",
    "Header": "unival.checkpoint.header",
    "Loaded": "unival.checkpoint.load",
    "load_checkpoint": "unival.checkpoint.load",
    "load_folder": "unival.checkpoint.folder",
    "save_folder": "unival.checkpoint.folder",
    "read_fairseq": "unival.core.torchfile",
    "read_header": "unival.core.torchfile",
    "load_bart": "unival.modeling.pretrained",
    "load_network": "unival.modeling.pretrained",
    "load_into": "unival.modeling.weights",
    "modality_exceptions": "unival.modeling.weights",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'unival.checkpoint' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
