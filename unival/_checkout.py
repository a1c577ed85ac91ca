"""In a checkout, find ``unival.models|tasks|criterions|data`` in the folders beside the package.

``setup.py`` ships the four folders as subpackages of ``unival``; a wheel needs nothing else. In a checkout they lie
beside the package, and this finder gives them the same and only import names. It stands before all others: an
environment that another checkout is installed in has a finder of its own for these names, which would mix that
checkout's plugin with this one's library.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_NAMES = ("models", "tasks", "criterions", "data")
_FOLDERS = {f"unival.{name}" for name in _NAMES}


class _CheckoutFinder:
    root = str(_PACKAGE.parent)

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [cls.root]) if fullname in _FOLDERS else None


_in_wheel = any((_PACKAGE / name / "__init__.py").is_file() for name in _NAMES)
if not _in_wheel and not any(getattr(f, "root", None) == _CheckoutFinder.root for f in sys.meta_path):
    sys.meta_path.insert(0, _CheckoutFinder)  # type: ignore[arg-type]
