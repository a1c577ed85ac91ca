"""UnIVAL: one encoder-decoder that takes text, image, video and audio.

``import unival`` is light and never imports fairseq. Training lives in the plugin (``unival.plugin``).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from unival import _checkout as _checkout

__version__ = "0.1.0"
__all__ = ["__version__", "build_model", "load"]

if TYPE_CHECKING:
    from unival.modeling.build import build_model
    from unival.predict.predictor import load

_LAZY = {"build_model": "unival.modeling.build", "load": "unival.predict.predictor"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'unival' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


if sys.modules.get("fairseq") is not None:  # fairseq imports us as its --user-dir
    from unival import plugin as plugin
