"""In a bare checkout, find ``unival.models|tasks|criterions|data`` in the sibling folders.

``setup.py`` ships the four folders as subpackages of ``unival``. Without an installation they lie
beside the package, and this finder gives them the same and only import names.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])
_FOLDERS = {f"unival.{name}": name for name in ("models", "tasks", "criterions", "data")}


class _CheckoutFinder:
    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname not in _FOLDERS:
            return None
        return PathFinder.find_spec(fullname, [_ROOT])


if not any(isinstance(finder, type) and finder.__name__ == "_CheckoutFinder" for finder in sys.meta_path):
    sys.meta_path.append(_CheckoutFinder)  # type: ignore[arg-type]
