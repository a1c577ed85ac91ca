"""Published scores and what it takes to obtain them: files, settings, expected value, tolerance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unival.checkpoint.catalogue import Entry, Target, find_entry, read_entries
from unival.core.paths import expand
from unival.core.provenance import file_hash
from unival.errors import CheckpointError
from unival.evaluate.paper import PaperTable
from unival.evaluate.recipe import EvaluationRecipe, read_recipe

__all__ = [
    "Entry",
    "Target",
    "check_files",
    "differences",
    "find_entry",
    "judge",
    "needed_files",
    "published",
    "read_entries",
]
VOCABULARY_FILES = ("dict.txt", "encoder.json", "vocab.bpe")


def published(entry: Entry, target: Target, table: PaperTable) -> list[float | None]:
    """Return what was published for the columns of a table of the paper, on the split of a target."""
    split = target.split.removesuffix(f"-{target.metric}")
    numbers = {
        other.metric: other.expected / other.scale
        for other in entry.results
        if other.split in (split, f"{split}-{other.metric}") and other.metric and other.expected is not None
    }
    return table.values(numbers)


def needed_files(entry: Entry, target: Target, checkpoint: str | None = None) -> list[tuple[Path, str]]:
    """Return (path, what it is) of all files that the evaluation reads; media are named as a whole."""
    recipe = read_recipe(entry.recipe_path())
    found = [(Path(checkpoint) if checkpoint else entry.path, "checkpoint")]
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
        found = file_hash(entry.path)
        if found != entry.sha256:
            raise CheckpointError(
                f"{entry.path} is not the released file: SHA-256 {found[:16]}..., "
                f"released {entry.sha256[:16]}...; fetch it again"
            )


def _origin(entry: Entry) -> str:
    return (
        f"fetch what is published with 'unival download --for reproduce:{entry.name}', or start with --fetch; "
        "UNIVAL_DATA and UNIVAL_WEIGHTS say where the files are looked for"
    )


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
