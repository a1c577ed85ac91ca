"""Tasks of one's own: Python files outside the project that register a task description.

``UNIVAL_PLUGINS`` names the files, joined as PATH is. An environment variable reaches every process of a run
(launcher, ranks, workers, shards) without an option in each verb.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from unival.errors import ConfigError

VARIABLE = "UNIVAL_PLUGINS"


def load_plugins() -> None:
    """Import every named file once.

    Raises:
        ConfigError: a file that is absent or fails.
    """
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(name).resolve()
        module_name = f"unival_plugin_{path.stem}"
        if module_name in sys.modules:
            continue
        if not path.is_file():
            raise ConfigError(f"{VARIABLE} names '{name}', which is not a file")
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{VARIABLE} names '{name}', which is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise ConfigError(f"plugin '{path}' fails: {type(error).__name__}: {error}") from error
