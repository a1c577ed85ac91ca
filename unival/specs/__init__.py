"""Descriptions of all tasks, independent of any training engine.

>>> get_spec("caption", "video").fields[0].name
'video'
"""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from functools import cache
from typing import TypeVar

from unival.errors import ConfigError, nearest
from unival.specs.base import Field, TaskSpec
from unival.specs.caption import CaptionSpec
from unival.specs.entailment import EntailmentSpec
from unival.specs.grounding import GroundedCaptionSpec, GroundingSpec
from unival.specs.image_gen import ImageGenSpec
from unival.specs.infilling import InfillingSpec
from unival.specs.matching import MatchingSpec
from unival.specs.negatives import NegativePool
from unival.specs.options import SpecOptions
from unival.specs.plugins import load_plugins
from unival.specs.pretrain import PretrainSpec
from unival.specs.verification import VerificationSpec
from unival.specs.vqa import VqaSpec

SPECS: dict[str, type[TaskSpec]] = {
    spec.name: spec
    for spec in (
        CaptionSpec,
        VqaSpec,
        GroundingSpec,
        GroundedCaptionSpec,
        MatchingSpec,
        VerificationSpec,
        EntailmentSpec,
        ImageGenSpec,
        PretrainSpec,
        InfillingSpec,
    )
}

__all__ = [
    "OWN",
    "SPECS",
    "Field",
    "NegativePool",
    "PretrainSpec",
    "SpecOptions",
    "TaskSpec",
    "all_options",
    "get_spec",
    "register",
]

OWN: dict[str, type[TaskSpec]] = {}  # descriptions from outside the project
Spec = TypeVar("Spec", bound=type[TaskSpec])


def register(spec: Spec) -> Spec:
    """Add a task description under its name; training gets a task of that name. Serves as a decorator.

    Raises:
        ConfigError: the name is taken.
    """
    if spec.name in SPECS:
        raise ConfigError(f"there is a task '{spec.name}' already; choose another name")
    if not issubclass(spec.options_class, SpecOptions):
        raise ConfigError(f"options_class of task '{spec.name}' must inherit unival.specs.SpecOptions")
    taken = {field.name for field in fields(all_options())} - {field.name for field in fields(SpecOptions)}
    for name in sorted(taken & vars(spec.options_class).get("__annotations__", {}).keys()):
        raise ConfigError(
            f"option '{name}' of task '{spec.name}' belongs to another task; choose another name"
        )
    SPECS[spec.name] = OWN[spec.name] = spec
    return spec


def all_options() -> type[SpecOptions]:
    """Return ``SpecOptions`` with the options that single tasks add: flags, recipes and calls take them all."""
    own = tuple(
        dict.fromkeys(spec.options_class for spec in SPECS.values() if spec.options_class is not SpecOptions)
    )
    return _joined(own) if own else SpecOptions


@cache
def _joined(classes: tuple[type[SpecOptions], ...]) -> type[SpecOptions]:
    return make_dataclass("SpecOptions", (), bases=classes, frozen=True)


def get_spec(name: str, modality: str | None = None) -> TaskSpec:
    """Return the description of a task on a modality (default: the task's first); ConfigError (nearest name) for
    an unknown one."""
    if name not in SPECS:
        raise ConfigError(f"unknown task '{name}'; tasks: {', '.join(SPECS)}.{nearest(name, SPECS)}")
    return SPECS[name](modality or SPECS[name].modalities[0])


load_plugins()
