"""A YAML recipe with ``extends:`` becomes the options of the training entry point.

A recipe names the task, the architecture, the criterion and its data; every other key of its
sections is an option of ``fairseq-train`` or of the plugin, with underscores. Sections only group.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from unival.core.files import write_text
from unival.core.paths import expand, expand_braces, join_paths
from unival.core.yaml_files import read_yaml
from unival.errors import ConfigError, nearest, said, shortened

CHOICES = ("task", "arch", "criterion", "optimizer", "lr_scheduler")
SECTIONS = ("model", "inputs", "loss", "optimization", "validation", "checkpoint", "run")
OTHER = ("extends", "description", "data", "mixture", "sources")


@dataclass
class Recipe:
    """A resolved recipe.

    ``choices`` are the registered names, ``data`` the train and valid tables (paths or table
    descriptions), ``mixture`` the pretraining sources (of an inherited list only those that ``sources``
    names, in that order), ``options`` everything else.
    """

    path: Path
    choices: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    mixture: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def _read(path: Path, trail: tuple[Path, ...]) -> dict[str, Any]:
    try:
        path = path.resolve()
        there = path.is_file()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise ConfigError(f"recipe {shortened(repr(str(path)), 80)} cannot be read: {said(error)}") from None
    if path in trail:
        raise ConfigError(
            f"{path}: 'extends' runs in a circle: {' -> '.join(p.name for p in (*trail, path))}"
        )
    if not there:
        raise ConfigError(
            f"recipe '{path}' does not exist" + (f" (extended by {trail[-1]})" if trail else "")
        )
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys, found a {type(content).__name__}")
    known = (*CHOICES, *SECTIONS, *OTHER)
    for key in content:
        if key not in known:
            raise ConfigError(f"{path}: unknown recipe key '{key}'.{nearest(str(key), known)}")
    for section in (*SECTIONS, "data"):
        if section in content and not isinstance(content[section], dict):
            raise ConfigError(f"{path}: section '{section}' must hold 'name: value' lines")
    merged: dict[str, Any] = {}
    parents = content.pop("extends", [])
    parents = parents if isinstance(parents, list) else [parents]
    if not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(f"{path}: 'extends' names a recipe, or lists some; found {_shown(parents)}")
    for parent in parents:
        merged = _merge(merged, _read(path.parent / parent, (*trail, path)))
    return _merge(merged, content)


def _merge(base: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in new.items():
        if key in SECTIONS and isinstance(value, dict):
            result[key] = {**result.get(key, {}), **value}
        else:
            result[key] = value
    return result


def _expand_all(value: Any) -> Any:
    if isinstance(value, str):
        return expand(value)
    if isinstance(value, dict):
        return {key: _expand_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand_all(item) for item in value]
    return value


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe with all that it extends; variables are expanded.

    Raises:
        ConfigError: absent file, unknown key (nearest name offered), an option in two sections,
            a circular ``extends`` or an unset variable.
    """
    content = _expand_all(_read(Path(path), ()))
    _check_kinds(content, path)
    recipe = Recipe(Path(path), description=str(content.get("description", "")))
    recipe.choices = {name: str(content[name]) for name in CHOICES if content.get(name) is not None}
    recipe.data = content.get("data", {})
    recipe.mixture = _chosen(content.get("mixture", []), content.get("sources"), path)
    for key in recipe.data:
        if key not in ("train", "valid"):
            raise ConfigError(f"{path}: unknown key 'data.{key}'.{nearest(key, ('train', 'valid'))}")
    for section in SECTIONS:
        for name, value in content.get(section, {}).items():
            if name in recipe.options:
                raise ConfigError(f"{path}: option '{name}' stands in two sections")
            recipe.options[name] = value
    return recipe


def _check_kinds(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Check what stands where a name, a list, a table or the name of an option belongs. Raises ConfigError."""

    def refuse(place: str, expected: str, value: Any) -> NoReturn:
        raise ConfigError(f"{path}: '{place}' must be {expected}; found {_shown(value)}")

    for name in CHOICES:
        if not isinstance(content.get(name), (str, type(None))):
            refuse(name, "a name", content[name])
    for name in ("train", "valid"):
        value = (content.get("data") or {}).get(name)
        tables = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(table, (str, Mapping)) for table in tables):
            refuse(f"data.{name}", "a table's file or description, or a list of them", value)
    mixture, sources = content.get("mixture", []), content.get("sources")
    if not isinstance(mixture, list):
        refuse("mixture", "a list of sources", mixture)
    if sources is not None and not (isinstance(sources, list) and all(isinstance(s, str) for s in sources)):
        refuse("sources", "a list of names", sources)
    for section in SECTIONS:
        for name in content.get(section) or {}:
            if not isinstance(name, str):
                refuse(section, "'name: value' lines", name)
    folder = (content.get("checkpoint") or {}).get("save_dir")
    if not isinstance(folder, (str, type(None))):
        refuse("checkpoint.save_dir", "a folder", folder)


def _shown(value: Any) -> str:
    return shortened(repr(value), 60)


def _chosen(mixture: list[Any], sources: Any, path: str | os.PathLike[str]) -> list[Any]:
    """The named sources of a mixture, all without names."""
    if sources is None:
        return mixture
    by_name = {entry.get("name"): entry for entry in mixture if isinstance(entry, Mapping)}
    for name in sources:
        if name not in by_name:
            known = [str(known) for known in by_name]
            raise ConfigError(
                f"{path}: 'sources' names '{name}', which the mixture has not.{nearest(str(name), known)}"
            )
    return [by_name[name] for name in sources]


def _table_argument(entry: Any, name: str, folder: Path) -> list[str]:
    """Paths for one data entry; a description (mapping) is written beside the run as YAML."""
    entries = entry if isinstance(entry, list) else [entry]
    paths: list[str] = []
    for number, item in enumerate(entries):
        if isinstance(item, Mapping):
            file = folder / f"{name}{number if len(entries) > 1 else ''}.table.yaml"
            write_yaml(file, _with_absolute_paths(item))
            paths.append(str(file))
        else:
            text = str(item)
            paths.extend([text] if os.path.exists(text) else expand_braces(text))
    return paths


def _with_absolute_paths(description: Mapping[str, Any]) -> dict[str, Any]:
    absolute = dict(description)
    for key in ("path", "media"):
        if isinstance(absolute.get(key), str):
            absolute[key] = os.path.abspath(absolute[key])
    return absolute


def write_yaml(path: Path, content: Any) -> None:
    """Write atomically, since several ranks write the same file."""
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _flag(name: str, value: Any, known: Collection[str]) -> list[str]:
    flag = "--" + name.replace("_", "-")
    flag = flag if flag in known else "--" + name
    if isinstance(value, bool):
        negative = "--no-" + name.replace("_", "-")
        if value:
            return [flag]
        return [negative] if negative in known else []
    if isinstance(value, (dict, list)) and not (
        isinstance(value, list) and all(isinstance(item, (int, float, str)) for item in value)
    ):
        return [f"{flag}={json.dumps(value)}"]
    if isinstance(value, list):
        return [f"{flag}={','.join(str(item) for item in value)}"]
    return [f"{flag}={value}"]


def check_options(names: Collection[str], known: Collection[str], origin: str) -> None:
    """Refuse option names that the entry point does not have; the nearest name is offered."""
    plain = sorted({flag.lstrip("-").replace("-", "_") for flag in known if flag.startswith("--")})
    for name in names:
        if name.replace("-", "_") not in plain:
            raise ConfigError(f"{origin}: unknown option '{name}'.{nearest(name.replace('-', '_'), plain)}")


def to_arguments(recipe: Recipe, known: Collection[str]) -> list[str]:
    """Return the argument list of the training entry point.

    Args:
        recipe: a resolved recipe.
        known: all option flags of the entry point for the recipe's task, arch and criterion.

    Raises:
        ConfigError: an option that the entry point does not know, no data, no save_dir.
    """
    kept = [name for name, value in recipe.options.items() if value is not None]  # null takes an option back
    check_options(kept, known, str(recipe.path))
    if not recipe.options.get("save_dir"):
        raise ConfigError(f"{recipe.path}: 'save_dir' is missing (section checkpoint)")
    tables = Path(recipe.options["save_dir"]) / "tables"
    arguments: list[str] = []
    if recipe.mixture:
        file = tables / "mixture.yaml"
        write_yaml(file, [_source(entry, recipe.path) for entry in recipe.mixture])
        arguments.append(str(file))
    else:
        if not recipe.data.get("train"):
            raise ConfigError(f"{recipe.path}: 'data.train' or 'mixture' is missing")
        paths = _table_argument(recipe.data["train"], "train", tables)
        if recipe.data.get("valid"):
            paths += _table_argument(recipe.data["valid"], "valid", tables)
        elif not recipe.options.get("disable_validation"):
            raise ConfigError(f"{recipe.path}: 'data.valid' is missing; or set disable_validation: true")
        arguments.append(join_paths(paths))
    for name, value in recipe.choices.items():
        arguments += [f"--{name.replace('_', '-')}={value}"]
    for name in kept:
        arguments += _flag(name, recipe.options[name], known)
    return arguments


def _source(entry: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or "table" not in entry:
        raise ConfigError(f"{path}: each source of 'mixture' needs a 'table'")
    table = entry["table"]
    return {
        **entry,
        "table": _with_absolute_paths(table) if isinstance(table, Mapping) else os.path.abspath(table),
    }
