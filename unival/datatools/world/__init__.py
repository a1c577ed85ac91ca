"""A small multimodal world, rendered from a seed: what the quickstart learns from, with no download."""

from unival.datatools.world.render import render

__all__ = ["render"]
