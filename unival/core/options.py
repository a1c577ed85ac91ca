"""Dataclass fields as command-line options: one place for names, types, help and defaults."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import math
import numbers
import os
import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from unival.errors import ConfigError, nearest, shortened

T = TypeVar("T")


def _plain_type(annotation: Any) -> Any:
    """Strip ``Optional`` from a type."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        return inner[0] if len(inner) == 1 else str
    return annotation


def parse_mapping(text: str) -> dict[str, Any]:
    """Read ``{"beam": 5}`` (JSON) or ``{'beam': 5}`` (a Python literal, as the reference accepts)."""
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise argparse.ArgumentTypeError(
                f"'{text}' is not a JSON object such as {{\"beam\": 5}}"
            ) from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{text}' is a {type(value).__name__}, expected a JSON object")
    return value


def _parse_list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with its help and bounds; a type as ``default`` makes a new value for each object.

    ``least`` and ``most`` are allowed themselves, ``above`` is not; :func:`check_fields` looks at them.
    """
    metadata = {"help": help, "least": least, "most": most, "above": above, "choices": choices}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)  # evaluates every annotation again


def check_fields(options: Any) -> None:
    """Compare the fields of a dataclass with their bounds.

    Raises:
        ConfigError: the option, its value and the bounds; the nearest choice is offered.
    """
    for item in dataclasses.fields(options):
        value, bounds = getattr(options, item.name), item.metadata
        least, most, above = (bounds.get(key) for key in ("least", "most", "above"))
        choices = bounds.get("choices")
        if value is None:
            continue
        if choices is not None and value not in choices:
            raise ConfigError(
                f"{item.name} '{value}' is not one of {', '.join(map(str, choices))}."
                + nearest(str(value), map(str, choices))
            )
        outside = (
            (least is not None and not value >= least)
            or (above is not None and not value > above)
            or (most is not None and not value <= most)
        )
        if outside:
            raise ConfigError(f"{item.name} must be {_bounds_in_words(least, most, above)}, got {value}")


def _bounds_in_words(least: float | None, most: float | None, above: float | None) -> str:
    words = [f"at least {least}"] if least is not None else [] if above is None else [f"above {above}"]
    return " and ".join(words + ([] if most is None else [f"at most {most}"]))


def add_arguments(parser: Any, cls: type, *, skip: Iterable[str] = ()) -> None:
    """Add one option per field of the dataclass ``cls`` to an argparse parser or group.

    An option that is not given stays out of the namespace's way as ``None``, so that
    :func:`from_namespace` can tell "not given" from a value. Booleans get ``--name`` and
    ``--no-name``. Names that the parser already has are left to their owner.
    """
    hints = _hints(cls)
    taken = set(parser._option_string_actions)
    for item in dataclasses.fields(cls):
        flag = "--" + item.name.replace("_", "-")
        if item.name in skip or flag in taken or item.metadata.get("internal"):
            continue
        flags = [flag] if "_" not in item.name else [flag, "--" + item.name]
        kind = _plain_type(hints[item.name])
        help_text = item.metadata.get("help", "").replace("%", "%%")
        if kind is bool:
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, default=None, help=help_text)
            continue
        origin = get_origin(kind) or kind
        if origin in (dict, Mapping):
            convert: Any = parse_mapping
        elif origin in (list, tuple):
            convert = _parse_list
        else:
            convert = kind
        choices = item.metadata.get("choices")
        shown = f"{{{','.join(map(str, choices))}}}" if choices else item.name.upper()
        parser.add_argument(*flags, type=convert, default=None, help=help_text, metavar=shown)


_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "names with values",
    Mapping: "names with values",
}


def check_types(options: Any, what: str, skip: Iterable[str] = ()) -> None:
    """Check that the fields of an options dataclass hold values of their types; ``what`` names the kind of option.

    A switch is no number, a text is no switch, and numbers are finite: recipes and callers in Python bring
    ``"5"``, ``2.5`` and ``"false"``. Raises ConfigError.
    """
    hints = _hints(options.__class__)
    for item in dataclasses.fields(options):
        if item.name not in skip:
            check_type(f"{what} {item.name}", getattr(options, item.name), hints[item.name])


def check_type(label: str, value: Any, annotation: Any) -> None:
    """Check one value, and the items of a list, against an annotation; kinds not listed above are left alone.

    Raises ConfigError that begins with ``label``.
    """
    plain = _plain_type(annotation)
    if value is None and plain is not annotation:
        return
    items = get_args(plain)
    plain = get_origin(plain) or plain
    if plain is float:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    elif plain is int:
        fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    elif plain in (list, tuple):
        fits = isinstance(value, (list, tuple))
        for item in value if fits else ():
            check_type(label, item, items[0] if items else Any)
    else:
        fits = plain not in _EXPECTED or isinstance(value, plain)
    if not fits:
        raise ConfigError(f"{label} {shortened(repr(value), 80)}: expected {_EXPECTED[plain]}")


def read_texts(values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return values as fields of ``cls`` take them: the text of a list is split at commas, that of a mapping read.

    Raises ConfigError for a text that is no mapping.
    """
    hints, found = _hints(cls), dict(values)
    for name, value in values.items():
        plain = _plain_type(hints[name])
        plain = get_origin(plain) or plain
        if isinstance(value, os.PathLike):
            found[name] = os.fspath(value)
        elif plain in (list, tuple) and isinstance(value, (str, list)):
            found[name] = tuple(_parse_list(value) if isinstance(value, str) else value)
        elif plain in (dict, Mapping) and isinstance(value, str):
            try:
                found[name] = parse_mapping(value)
            except argparse.ArgumentTypeError as error:
                raise ConfigError(f"{name}: {error}") from None
    return found


def given(namespace: argparse.Namespace | Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return the fields of ``cls`` that the namespace sets to something other than ``None``."""
    values = namespace if isinstance(namespace, Mapping) else vars(namespace)
    names = [item.name for item in dataclasses.fields(cls)]
    return {name: values[name] for name in names if values.get(name) is not None}


def from_namespace(namespace: argparse.Namespace | Mapping[str, Any], cls: type[T]) -> T:
    """Build ``cls`` from the given options; everything else keeps the dataclass default."""
    return cls(**given(namespace, cls))


def from_mapping(values: Mapping[str, Any], cls: type[T]) -> T:
    """Build ``cls`` from a mapping.

    Raises:
        ConfigError: a key that is not a field; the nearest name is offered.
    """
    names = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigError(f"unknown option '{key}' for {cls.__name__}.{nearest(key, names)}")
    return cls(**values)


def to_dict(value: Any) -> dict[str, Any]:
    """Fields of an options dataclass as plain containers, for configs and checkpoints."""
    return {
        key: dict(item) if isinstance(item, Mapping) else list(item) if isinstance(item, tuple) else item
        for key, item in ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    }
