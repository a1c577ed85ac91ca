"""Merging of finetuned weights: recipes, methods, sweeps over coefficients, chains of finetunings.

>>> from unival.merge import MergeRecipe, merge
>>> merge(MergeRecipe(out="out/merged", models=("out/a", "out/b")))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

_EXPORTS = {
    "METHODS": "methods",
    "MergeRecipe": "recipe",
    "Merged": "run",
    "merge": "run",
    "read_document": "recipe",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    """Import what is asked for; training reads only the lineage of this package."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'unival.merge' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"unival.merge.{_EXPORTS[name]}"), name)
