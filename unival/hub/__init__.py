"""The model as a class of Hugging Face transformers. Importing this needs transformers installed."""

from __future__ import annotations

from unival.hub.model import UnivalConfig, UnivalModel

__all__ = ["UnivalConfig", "UnivalModel"]
