"""The command that installs an optional part, for the installation at hand."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path

from unival.core.paths import checkout


def install_extra(extra: str) -> str:
    """Return what to type to get an extra of setup.py: ``pip install -e '.[demo]'`` in a checkout.

    From another folder the checkout is named by its path; a wheel's extras are named by the package.
    """
    folder = checkout()
    if folder is None:
        return f"{installer()} 'unival[{extra}]'"
    place = "." if folder == Path.cwd().resolve() else str(folder)
    return f"{installer()} -e {_quoted(f'{place}[{extra}]')}"


def installer() -> str:
    """Return the installing program of this interpreter's environment, down to the word ``install``.

    ``pip`` where that word means this environment, otherwise pip by the interpreter's path; an environment
    without pip was made by uv.
    """
    if importlib.util.find_spec("pip") is None:
        return f"uv pip install --python {_quoted(_shown(sys.executable))}"
    found = shutil.which("pip")
    here = Path(sys.executable).parent
    if found is not None and Path(found).parent == here:
        return "pip install"
    return f"{_quoted(_shown(sys.executable))} -m pip install"


def _shown(path: str) -> str:
    """A path below the working directory is shorter from there."""
    below = os.path.relpath(path)
    return path if below.startswith("..") else below


def _quoted(word: str) -> str:
    return f"'{word}'" if "[" in word and "'" not in word else shlex.quote(word)
