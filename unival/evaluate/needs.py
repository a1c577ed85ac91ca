"""Which files a run reads, and which of them the catalogue can fetch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.checkpoint.catalogue import Entry, PublishedFile, find_entry, found_at
from unival.core.paths import expand, expand_braces, root
from unival.core.recipe import load_recipe
from unival.core.yaml_files import read_yaml
from unival.errors import ConfigError
from unival.evaluate.reproduce import needed_files

PREFIX = "reproduce:"
WRITTEN = ("save_dir", "gen_images_path", "tensorboard_logdir", "log_file")  # options that name outputs


@dataclass
class Needs:
    """What of the catalogue a run reads, by path: one of the files is needed, in their order; and what is not
    published: (path, what it is), media by their folder."""

    groups: dict[Path, list[tuple[Entry, PublishedFile]]] = field(default_factory=dict)
    unpublished: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def files(self) -> list[tuple[Entry, PublishedFile]]:
        """All of them once, in order."""
        found: list[tuple[Entry, PublishedFile]] = []
        for group in self.groups.values():
            found += [pair for pair in group if pair not in found]
        return found

    def add(self, entries: Mapping[str, Entry], path: Path, what: str) -> None:
        found = found_at(entries, path)
        for entry, file in found:
            single = path in file.results or file.folder is not None
            group = self.groups.setdefault(path if single else file.results[0], [])  # else of a folder
            group += [(entry, file)] if (entry, file) not in group else []
        if not found and (path, what) not in self.unpublished:
            self.unpublished.append((path, what))


def needs_of(entries: Mapping[str, Entry], what: str) -> Needs:
    """Return what a run needs: ``reproduce:NAME`` or ``reproduce:NAME:SPLIT``, or a recipe (training, evaluation,
    merging). Raises ConfigError."""
    found = Needs()
    if what.startswith(PREFIX):
        name, _, split = what.removeprefix(PREFIX).partition(":")
        entry = find_entry(entries, name)
        for path, kind in needed_files(entry, entry.target(split or None)):
            if kind.startswith("media"):
                found.unpublished.append((path, kind))
            else:
                found.add(entries, path, kind)
        return found
    for path in dict.fromkeys(_paths(Path(what))):
        found.add(entries, path, "named by the recipe")
    return found


def _paths(recipe: Path) -> Iterator[Path]:
    """Paths below UNIVAL_DATA and UNIVAL_WEIGHTS that a recipe names as inputs; the folders themselves are none."""
    content = read_yaml(recipe)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{recipe}: a recipe is a mapping of keys, found a {type(content).__name__}")
    if not {"task", "extends", "data", "mixture"} & set(content):  # of merging
        values: list[Any] = [content]
    else:
        whole = load_recipe(recipe)
        options = {name: value for name, value in whole.options.items() if name not in WRITTEN}
        values = [whole.data, whole.mixture, options]
    roots = [os.path.abspath(root(name)) for name in ("UNIVAL_WEIGHTS", "UNIVAL_DATA")]
    for text in _texts(values):
        for path in map(os.path.abspath, expand_braces(expand(text))):
            if any(path.startswith(place + os.sep) for place in roots):
                yield Path(path)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
