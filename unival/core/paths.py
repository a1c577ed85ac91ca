"""The three roots of a run: data, output and weights; environment variables with defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from unival.errors import ConfigError, nearest

_DEFAULTS = {"UNIVAL_DATA": "userdata", "UNIVAL_OUT": "out", "UNIVAL_WEIGHTS": "weights"}
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMMA = re.compile(r"(?<!\\),")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def checkout() -> Path | None:
    """The checkout that unival runs from, None when it was installed as a wheel."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "run_scripts").is_dir() and (folder / "setup.py").is_file() else None


def base_folder() -> Path:
    """The checkout when unival runs from one, otherwise the working directory."""
    return checkout() or Path.cwd()


def recipes() -> Path:
    """The folder of the shipped recipes: ``configs`` of the checkout, or the copy that a wheel brings."""
    folder = checkout()
    return folder / "configs" if folder is not None else Path(__file__).resolve().parents[1] / "configs"


def root(name: str) -> Path:
    """Return the folder of ``UNIVAL_DATA``, ``UNIVAL_OUT`` or ``UNIVAL_WEIGHTS``."""
    value = os.environ.get(name)
    return Path(value).expanduser() if value else base_folder() / _DEFAULTS[name]


def expand(text: str) -> str:
    """Replace ``${UNIVAL_DATA}`` and its siblings, and other variables of the environment.

    Raises:
        ConfigError: a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in _DEFAULTS:
            return str(root(name))
        if name in os.environ:
            return os.environ[name]
        raise ConfigError(f"${{{name}}} is not set.{nearest(name, [*_DEFAULTS, *os.environ])}")

    return _VARIABLE.sub(value, text)


def expand_braces(text: str) -> list[str]:
    """Turn ``a_{1..3}.tsv`` into three names (``{001..100}`` keeps its zeros); text without braces stays alone."""
    match = _BRACES.search(text)
    if match is None:
        return [text]
    first, last = int(match.group(1)), int(match.group(2))
    if last < first:
        raise ConfigError(f"'{match.group(0)}' counts downwards; write the smaller number first")
    head, tail = text[: match.start()], text[match.end() :]
    digits = len(match.group(1)) if match.group(1).startswith("0") else 1
    numbers = [f"{number:0{digits}}" for number in range(first, last + 1)]
    return [name for number in numbers for name in expand_braces(f"{head}{number}{tail}")]


def join_paths(paths: Iterable[str]) -> str:
    """Return one word for several paths, commas between them; a comma of a path becomes ``\\,``."""
    return ",".join(path.replace(",", "\\,") for path in paths)


def split_paths(text: str) -> list[str]:
    """Return the paths of a word with commas between them, as :func:`join_paths` writes it; blanks are none."""
    return [path.replace("\\,", ",") for path in _COMMA.split(text) if path]
