"""What a recipe says about evaluation: task, table, prompts, sizes, decoding, weights.

Recipes for evaluation (configs/evaluate) and for training have one format; of a training recipe the parts
that concern training are passed over.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unival.core.recipe import load_recipe
from unival.errors import ConfigError, nearest
from unival.specs import all_options
from unival.specs.reference import REFERENCE_TASKS, resolve_task

# option of a recipe -> how evaluation takes it
OPTIONS = (
    "eval_args",
    "val_inference_type",
    "selected_cols",
    "image_dir",
    "bpe_dir",
    "code_dict_size",
    "num_bins",
    "uses_ema",
    "modality",
    "batch_size_valid",
    "document_frequencies",
    "caption_metrics",
    "paper_table",
)


@dataclass(frozen=True)
class EvaluationRecipe:
    """The evaluation part of a recipe; ``options`` are fields of SpecOptions, ``extra`` of OPTIONS."""

    path: str = ""
    task: str | None = None
    modality: str | None = None
    table: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> EvaluationRecipe:
    """Read a recipe. Raises ConfigError for a recipe without task and for misspelt options of evaluation."""
    recipe = load_recipe(path)
    named = recipe.choices.get("task")
    if named is None:
        raise ConfigError(f"{path}: 'task' is missing")
    task, modality = resolve_task(named, recipe.options.get("modality"))
    if modality is None and named in REFERENCE_TASKS:
        modality = REFERENCE_TASKS[named][1]
    spec_names = {f.name for f in fields(all_options())}
    known = [*spec_names, *OPTIONS]
    for name in recipe.options:
        if name not in known and _is_misspelt(name, known):
            raise ConfigError(f"{path}: unknown option '{name}'.{nearest(name, known)}")
    given = {name: value for name, value in recipe.options.items() if value is not None}
    return EvaluationRecipe(
        path=str(path),
        task=task,
        modality=modality,
        table=_one_table(recipe.data.get("valid"), path),
        options={name: value for name, value in given.items() if name in spec_names},
        extra={name: value for name, value in given.items() if name in OPTIONS},
    )


def _is_misspelt(name: str, known: list[str]) -> bool:
    # Options of training are many and belong to the engine; a near miss of one of ours does not.
    return bool(difflib.get_close_matches(name, known, n=1, cutoff=0.88))


def _one_table(entry: Any, path: str | os.PathLike[str]) -> str | dict[str, Any] | None:
    if isinstance(entry, list):
        if len(entry) != 1:
            raise ConfigError(f"{path}: 'data.valid' lists {len(entry)} tables; an evaluation takes one")
        entry = entry[0]
    if isinstance(entry, Mapping):
        return {k: os.path.abspath(v) if k in ("path", "media") else v for k, v in entry.items()}
    return None if entry is None else str(entry)
