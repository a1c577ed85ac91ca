"""The catalogue of published things: weights, vocabularies, tables; where they are, what they must be, where they go.

It is the YAML files in the folder ``published`` beside this module: each a list of ``sources`` (where facts were
read; entries name them) and of ``entries`` by name, whose keys are the fields of the classes below.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from unival.core.paths import expand, expand_braces, recipes
from unival.core.yaml_files import read_yaml
from unival.errors import CheckpointError, ConfigError, nearest

FOLDER = Path(__file__).with_name("published")
T = TypeVar("T")


@dataclass(frozen=True)
class PublishedFile:
    """One file: ``urls`` to try in turn (the authors' server first), or ``pages`` where a person has to fetch it.

    place: where it goes, where recipes look for it. bytes; sha256: the hash or its first digits; md5: where
    nothing better is stated. unpack: the folder that an archive's members go to, which ``gives`` (names below
    it); the archive is not kept. copies: {name: member} of shuffled copies that scripts expect beside a member
    and that are not published. source: keys of the list's sources; probable: what is not stated there.
    Two files with one place are alternatives.
    """

    place: str
    urls: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: str | None = None
    gives: tuple[str, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    source: tuple[str, ...] = ()
    probable: str | None = None

    @property
    def path(self) -> Path:
        return Path(expand(self.place))

    @property
    def folder(self) -> Path | None:
        """Where an archive's members go."""
        return None if self.unpack is None else Path(expand(self.unpack))

    @property
    def results(self) -> list[Path]:
        """What is there when it was fetched."""
        if self.folder is None:
            return [self.path]
        return [self.folder / name for name in self.gives] or [self.folder]

    @property
    def marker(self) -> Path | None:
        """A file that says which members an unpacked archive brought."""
        return None if self.folder is None else self.folder / f".{self.path.name}"

    def present(self) -> bool:
        """True when it was fetched; an archive also when not all that it should give was in it."""
        unpacked = self.marker is not None and self.marker.exists()
        return unpacked or all(path.exists() for path in self.results)


@dataclass(frozen=True)
class Target:
    """One published number. ``scale``: what our value is multiplied with to be in the publication's unit.

    ``expected`` is None where no number is published, ``server`` names where a test set without public
    targets is scored.
    """

    split: str
    table: str | None = None
    metric: str | None = None
    expected: float | None = None
    tolerance: float | None = None
    scale: float = 100.0
    server: str | None = None
    source: str = ""


@dataclass(frozen=True)
class Entry:
    """A published thing.

    checkpoint: what ``unival.load`` opens, a file or a folder; None for what is not a model of this project.
    recipe: of its evaluation. needs: entries that must lie beside it. page: the publication's own address.
    settings: how its score was obtained, as flat names of result.json ("options.num_frames", "precision");
    notes: what no setting shows; make: commands that build it, for stand-ins; paper_table: another table of the
    paper than the recipe's.
    """

    name: str
    description: str
    checkpoint: str | None = None
    recipe: str | None = None
    family: str = ""
    task: str | None = None
    size: str | None = None
    license: str | None = None
    page: str | None = None
    needs: tuple[str, ...] = ()
    files: tuple[PublishedFile, ...] = ()
    media: str = ""
    results: tuple[Target, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    paper_table: str | None = None
    folder: Path = Path()

    @property
    def sha256(self) -> str | None:
        """Hash of the checkpoint's file, where it is one and the whole hash is known."""
        found = next((file.sha256 for file in self.files if file.place == self.checkpoint), None)
        return found if found is not None and len(found) == 64 else None

    @property
    def path(self) -> Path:
        """Place of the checkpoint on this machine. Raises ConfigError for what is no model."""
        if self.checkpoint is None:
            raise ConfigError(f"'{self.name}' is not a model to load: {self.description}")
        return Path(expand(self.checkpoint))

    def present(self) -> bool:
        """True when all its files are there; of alternatives one suffices."""
        return all(any(file.present() for file in same) for same in alternatives(self.files))

    def recipe_path(self) -> Path:
        if self.recipe is None:
            raise ConfigError(f"'{self.name}' has no published score of its own: {self.description}")
        return self.folder / self.recipe

    def target(self, split: str | None) -> Target:
        """Return one of the results, the first by default. Raises ConfigError for an unknown split."""
        self.recipe_path()
        known = [target.split for target in self.results]
        if split is not None and split not in known:
            raise ConfigError(
                f"'{self.name}' has no split '{split}'; it has {', '.join(known)}.{nearest(split, known)}"
            )
        return self.results[0 if split is None else known.index(split)]


def alternatives(files: Iterable[PublishedFile]) -> list[list[PublishedFile]]:
    """Group files of which one suffices, in the order of the list: those that give the same first thing."""
    groups: dict[Path, list[PublishedFile]] = {}
    for file in files:
        groups.setdefault(file.results[0], []).append(file)
    return list(groups.values())


def read_entries(path: str | Path | None = None) -> dict[str, Entry]:
    """Read the catalogue, or another list of entries, whose recipes then start from its folder.

    Raises ConfigError (file and entry) for a list that is not one.
    """
    return dict(_catalogue()) if path is None else _read(Path(path), Path(path).parent)


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for name, entry in _read(path, recipes()).items():
            if name in found:
                raise ConfigError(f"{path}: entry '{name}' stands in another list too")
            found[name] = entry
    for entry in found.values():
        for name in entry.needs:
            find_entry(found, name)
    return found


def find_entry(entries: Mapping[str, Entry], name: str) -> Entry:
    """Return an entry; ConfigError with the nearest name for an unknown one."""
    if name not in entries:
        raise ConfigError(
            f"no entry '{name}' in the catalogue (unival download --list).{nearest(name, entries)}"
        )
    return entries[name]


def found_at(entries: Mapping[str, Entry], path: str | Path) -> list[tuple[Entry, PublishedFile]]:
    """Return what puts a file at this path, alternatives in their order; a folder is all that goes below it."""
    wanted = os.path.abspath(path)
    found: dict[str, tuple[Entry, PublishedFile]] = {}
    for entry in entries.values():
        for file in entry.files:
            place = os.path.abspath(file.path)
            here = place == wanted or (file.folder is None and place.startswith(wanted + os.sep))
            if here or (file.folder is not None and _unpacked(file, wanted)):
                found.setdefault(file.place + (file.unpack or ""), (entry, file))
    return list(found.values())


def _unpacked(file: PublishedFile, path: str) -> bool:
    """Is the path one that an archive gives, or a copy that is made of one?"""
    names = [f"{file.unpack}/{name}" for name in (*file.gives, *file.copies)] or [str(file.unpack)]
    return any(path == os.path.abspath(expand(one)) for name in names for one in (name, *expand_braces(name)))


def local_path(checkpoint: str | Path) -> Path:
    """Return the path of a checkpoint given by path or by its name in the catalogue.

    Raises CheckpointError for a path where nothing is, and with the command that fetches it for a published one
    that is not here; ConfigError for a name that is none.
    """
    if Path(checkpoint).exists():
        return Path(checkpoint)
    entries = read_entries()
    if str(checkpoint) not in entries:
        if Path(checkpoint).suffix or len(Path(checkpoint).parts) > 1:  # a path, no name
            raise CheckpointError(f"checkpoint '{checkpoint}' does not exist")
        raise ConfigError(
            f"'{checkpoint}' is neither a file, nor a folder, nor the name of a published checkpoint."
            f"{nearest(str(checkpoint), entries)}"
        )
    entry = entries[str(checkpoint)]
    path = entry.path
    if path.exists() and entry.present():
        return path
    how = f"fetch it with 'unival download {entry.name}'"
    if entry.make:
        how = f"make it with {'; '.join(expand(command) for command in entry.make)}"
    raise CheckpointError(f"checkpoint '{entry.name}' is not at {path}: {how}, or set UNIVAL_WEIGHTS")


def _read(path: Path, folder: Path) -> dict[str, Entry]:
    content = read_yaml(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("entries"), Mapping):
        raise ConfigError(f"{path} is not a list of published things: it has no 'entries'")
    sources = content.get("sources") or {}
    return {
        str(name): _entry(path, str(name), given, sources, folder)
        for name, given in content["entries"].items()
    }


def _entry(path: Path, name: str, given: Any, sources: Mapping[str, str], folder: Path) -> Entry:
    place = f"{path}: entry '{name}'"
    if not isinstance(given, Mapping) or "description" not in given:
        raise ConfigError(f"{place} is not a mapping with a description")
    values = dict(given)
    targets = values.pop("results", None) or {}
    files = [_file(place, file, sources) for file in values.pop("files", None) or ()]
    results = [
        _made(f"{place}, {split}", Target, {**target, "split": str(split)})
        for split, target in targets.items()
    ]
    values |= {"name": name, "folder": folder, "results": tuple(results), "files": tuple(files)}
    return _made(place, Entry, values)


def _file(place: str, given: Mapping[str, Any], sources: Mapping[str, str]) -> PublishedFile:
    file: PublishedFile = _made(place, PublishedFile, dict(given))
    for url in (*file.urls, *file.pages):
        if not re.match(r"https?://[^/]+/", url):
            raise ConfigError(f"{place}: '{url}' is not an http(s) address")
    if file.sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", file.sha256):
        raise ConfigError(f"{place}: sha256 '{file.sha256}' is not 8 to 64 hexadecimal digits")
    if not file.place.startswith("${UNIVAL_"):
        raise ConfigError(
            f"{place}: place '{file.place}' does not start from one of the roots, ${{UNIVAL_...}}"
        )
    for key in file.source:
        if key not in sources:
            raise ConfigError(f"{place}: source '{key}' is not in the list's sources.{nearest(key, sources)}")
    return file


def _made(place: str, kind: type[T], values: dict[str, Any]) -> T:
    """Build a class from a mapping, lists as tuples."""
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"{place}: unknown key '{key}'.{nearest(str(key), known)}")
    try:
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except TypeError as error:
        raise ConfigError(f"{place}: {error}") from None
