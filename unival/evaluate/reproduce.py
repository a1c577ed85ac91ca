"""Published scores and what it takes to obtain them: files, settings, expected value, tolerance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.core.paths import base_folder, expand
from unival.core.provenance import file_hash
from unival.core.yaml_files import read_yaml
from unival.errors import CheckpointError, ConfigError, nearest
from unival.evaluate.recipe import EvaluationRecipe, read_recipe

RELEASED = "checkpoints/released.yaml"
VOCABULARY_FILES = ("dict.txt", "encoder.json", "vocab.bpe")


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
    """A released checkpoint. ``settings``: how its score was obtained, as flat names of result.json
    ("options.num_frames", "precision"); ``notes``: differences that no setting shows; ``make``: commands
    that build it, for stand-ins."""

    name: str
    description: str
    checkpoint: str
    recipe: str | None = None
    url: str | None = None
    sha256: str | None = None
    media: str = ""
    results: tuple[Target, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    folder: Path = Path()

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


def read_entries(path: str | Path | None = None) -> dict[str, Entry]:
    """Read the list of released checkpoints. Raises ConfigError for a file that is not one."""
    path = Path(path) if path is not None else base_folder() / RELEASED
    try:
        content = read_yaml(path)
        return {name: _entry(name, dict(given), path.parent) for name, given in content["entries"].items()}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not a list of released checkpoints: {error}") from None


def _entry(name: str, given: dict[str, Any], folder: Path) -> Entry:
    results = tuple(Target(split, **target) for split, target in (given.pop("results", None) or {}).items())
    notes, make = (tuple(given.pop(key, None) or ()) for key in ("notes", "make"))
    return Entry(name=name, folder=folder, results=results, notes=notes, make=make, **given)


def find_entry(entries: Mapping[str, Entry], name: str) -> Entry:
    """Return an entry; ConfigError with the nearest name for an unknown one."""
    if name not in entries:
        raise ConfigError(f"no entry '{name}'; known: {', '.join(entries)}.{nearest(name, entries)}")
    return entries[name]


def needed_files(entry: Entry, target: Target, checkpoint: str | None = None) -> list[tuple[Path, str]]:
    """Return (path, what it is) of all files that the evaluation reads; media are named as a whole."""
    recipe = read_recipe(entry.recipe_path())
    found = [(Path(checkpoint or expand(entry.checkpoint)), "checkpoint")]
    table = target.table or recipe.table
    found.append((Path(expand(table)) if isinstance(table, str) else Path(table["path"]), "table"))
    if not entry.make:  # checkpoints of ours carry their vocabulary
        folder = Path(recipe.extra.get("bpe_dir", ""))
        found += [(folder / name, "vocabulary") for name in VOCABULARY_FILES]
    if recipe.options.get("ans2label_file"):
        found.append((Path(recipe.options["ans2label_file"]), "closed list of answers"))
    if recipe.extra.get("image_dir"):
        found.append((Path(recipe.extra["image_dir"]), f"media: {entry.media or 'as the table names them'}"))
    return found


def check_files(entry: Entry, target: Target, checkpoint: str | None = None) -> None:
    """Raise CheckpointError when a needed file is absent, or the checkpoint is not the released one."""
    absent = [
        f"{path} ({what})" for path, what in needed_files(entry, target, checkpoint) if not path.exists()
    ]
    if absent:
        how = [f"  {expand(command)}" for command in entry.make]
        lines = [f"'{entry.name}' needs files that are not there:", *(f"  {line}" for line in absent)]
        raise CheckpointError("\n".join([*lines, *(["make them with:", *how] if how else [_origin(entry)])]))
    if entry.sha256 is not None and checkpoint is None:
        found = file_hash(expand(entry.checkpoint))
        if found != entry.sha256:
            raise CheckpointError(
                f"{expand(entry.checkpoint)} is not the released file: SHA-256 {found[:16]}..., "
                f"released {entry.sha256[:16]}...; fetch it again"
            )


def _origin(entry: Entry) -> str:
    where = (
        f"Download: {entry.url}." if entry.url else "This project does not know a download address for it."
    )
    return f"{where} Put the files there, or set UNIVAL_DATA and UNIVAL_WEIGHTS."


@dataclass(frozen=True)
class Reproduction:
    """Outcome: ``obtained`` in the publication's unit, None where there is nothing to compare."""

    target: Target
    obtained: float | None
    n: int
    limited: bool
    differences: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """ "reproduced", "not reproduced", or why there is no verdict."""
        if self.obtained is None:
            return f"to be scored by {self.target.server}" if self.target.server else "no target in the table"
        if self.limited:
            return "no verdict on a part of the set (--limit)"
        if self.target.expected is None or self.target.tolerance is None:
            return "no published value"
        within = abs(self.obtained - self.target.expected) <= self.target.tolerance + 1e-9
        return "reproduced" if within else "not reproduced"


def judge(entry: Entry, target: Target, result: Mapping[str, Any]) -> Reproduction:
    """Compare a result of ``unival evaluate`` with the published value and settings."""
    value = result["metrics"].get(target.metric or result["main_metric"])
    return Reproduction(
        target,
        None if value is None else value * target.scale,
        result["n"],
        result.get("limit") is not None,
        tuple(differences(entry, result)),
    )


def differences(entry: Entry, result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings of ``result`` that are not those of the recipe or of the publication."""
    recipe: EvaluationRecipe = read_recipe(entry.recipe_path())
    wanted: dict[str, Any] = {f"options.{name}": value for name, value in recipe.options.items()}
    wanted |= {f"decoding.{name}": value for name, value in recipe.extra.get("eval_args", {}).items()}
    wanted |= entry.settings
    for name, value in wanted.items():
        used = _lookup(result, name)
        if json.dumps(used, sort_keys=True, default=str) != json.dumps(value, sort_keys=True, default=str):
            yield f"{name}: published {value}, here {used}"
    if result.get("coverage", 1.0) < 1.0:
        yield f"coverage: published 100 %, here {result['coverage']:.1%}"


def _lookup(result: Mapping[str, Any], name: str) -> Any:
    value: Any = result
    for part in name.split(".", 1):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
