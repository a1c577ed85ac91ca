"""Which task, options, prompts and decoding settings count: the checkpoint's, a recipe's or the call's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unival.checkpoint.header import Header
from unival.errors import ConfigError
from unival.specs import SpecOptions, TaskSpec, all_options, get_spec
from unival.specs.reference import resolve_task

LISTS = ("answers", "ans2label_dict", "ans2label_file")  # the options that name a closed list


@dataclass(frozen=True)
class Wanted:
    """Task, answer mode, task options and decoding settings that a recipe or a call names; None and empty
    leave them open."""

    task: str | None = None
    modality: str | None = None
    mode: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """What counts. ``decoding`` are settings over the task's own; ``mode`` None is the task's own."""

    spec: TaskSpec
    options: SpecOptions
    decoding: dict[str, Any]
    mode: str | None


def resolve(header: Header, asked: Wanted, recipe: Wanted | None = None, zero_shot: bool = False) -> Resolved:
    """Lay what is asked over a recipe, or over what the checkpoint says where there is no recipe.

    The checkpoint's options and prompts count for all tasks, the decoding and answer mode of its validation
    for the task and modality that it was trained for. ``zero_shot``: nothing that it says counts but its task.
    One closed list of answers replaces another; mode "open" needs none.
    Raises ConfigError when no task is named, and for tasks and options that do not exist.
    """
    base = recipe or Wanted()
    spec = _spec(header, asked, base, with_recipe=recipe is not None)
    own = recipe is None and not zero_shot
    if own:
        base = Wanted(options=header.kept_options())
        if trained_on(header, spec):
            said = header.decoding
            base = Wanted(None, None, said.get("mode"), base.options, said.get("settings") or {})
    mode = asked.mode or base.mode
    options = laid_over(base.options, asked.options)
    if mode == "open":  # not even the list that training used
        options = _without_lists(options)
    return Resolved(spec, all_options().from_options(**options), {**base.decoding, **asked.decoding}, mode)


def laid_over(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with those given in the place of theirs; one closed list replaces another, prompts are
    replaced by name."""
    kept = _without_lists(options) if set(LISTS) & set(given) else options
    joined = {**kept, **given}
    if options.get("prompts") and given.get("prompts"):
        joined["prompts"] = {**options["prompts"], **given["prompts"]}
    return joined


def trained_on(header: Header, spec: TaskSpec) -> bool:
    """True when the checkpoint was trained for this task on this modality."""
    return (
        header.task.get("name") == spec.name and header.task.get("modality", spec.modality) == spec.modality
    )


def _spec(header: Header, asked: Wanted, recipe: Wanted, with_recipe: bool) -> TaskSpec:
    named = asked.task or recipe.task or header.task.get("name")
    if named is None:
        raise ConfigError("--task is missing: the checkpoint does not say what it was trained for")
    task, modality = resolve_task(named, asked.modality)
    if task == "pretrain":
        raise ConfigError("the checkpoint was trained on several tasks: name the one to evaluate with --task")
    if modality is None and not asked.task:
        modality = recipe.modality
    if modality is None and task == header.task.get("name") and not with_recipe:
        modality = header.task.get("modality")
    return get_spec(task, modality)


def _without_lists(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in LISTS}
