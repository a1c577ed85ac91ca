"""Where a merged checkpoint comes from: the entry in its config.json and its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unival.checkpoint.folder import FORMAT
from unival.merge.checks import Plan
from unival.merge.methods import METHODS
from unival.merge.recipe import MergeRecipe
from unival.merge.source import Source

CARD = "README.md"


def describe(
    recipe: MergeRecipe,
    sources: Sequence[Source],
    made: Plan,
    hashes: Mapping[str, str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Contents of config.json: what any checkpoint folder says, the ancestors, and the merge itself.

    Task and decoding settings are kept where all models agree; the same inputs give the same file.
    """
    tasks = [source.header.task for source in sources]
    same_task = all(task == tasks[0] for task in tasks)
    digests = [hashes[model.path] for model in recipe.models]
    ancestors = [h for source in sources for h in source.header.lineage or ()]
    known = all(source.header.lineage is not None for source in sources)
    return {
        "format": FORMAT,
        "model": made.config.to_dict(),
        "vocabulary": sources[0].vocabulary.fingerprint(),
        "prompts": sources[0].header.all_prompts,
        "weights": sources[0].weights,
        **_agreed([{"family": source.header.family} for source in sources]),
        **(
            {"task": tasks[0], "decoding": _agreed([s.header.decoding for s in sources])} if same_task else {}
        ),
        "task_options": _agreed([source.header.options for source in sources]),
        **({"lineage": list(dict.fromkeys([*ancestors, *digests]))} if known else {}),
        "merge": {
            "method": recipe.method,
            "paper": METHODS[recipe.method].paper,
            "inputs": [
                {
                    "name": model.name,
                    "path": model.path,
                    "sha256": digest,
                    "weights": source.weights,
                    "coefficient": coefficient,
                    "task": task.get("name"),
                    **({"fisher": model.fisher} if model.fisher else {}),
                }
                for model, digest, source, coefficient, task in zip(
                    recipe.models, digests, sources, recipe.coefficients, tasks, strict=True
                )
            ],
            "base": {"path": recipe.base, "sha256": hashes[recipe.base]} if recipe.base else None,
            "parts": [asdict(part) for part in recipe.parts],
            "settings": {
                name: getattr(recipe, name)
                for name in ("only_some", "batchnorm", "scale", "density", "seed", "dtype")
            },
            "recomputed_on": [asdict(table) for table in recipe.recompute],
            "warnings": list(warnings),
        },
    }


def _agreed(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings that all models have with the same value."""
    first = entries[0]
    return {k: v for k, v in first.items() if all(k in other and other[k] == v for other in entries[1:])}


def write_card(folder: Path, recipe: MergeRecipe, meta: Mapping[str, Any], warnings: Sequence[str]) -> None:
    """Write the model card: what was merged, how, from which files, and how to use the result."""
    entry = meta["merge"]
    lines = [
        f"# {Path(recipe.out).name}",
        "",
        recipe.description or f"Weights of {len(recipe.models)} models, merged.",
        "",
        f"* Method: {entry['method']} ({entry['paper']})",
        f"* Weights: {meta['weights']}",
        *[f"* {name}: {value}" for name, value in entry["settings"].items() if value not in (None, 1.0)],
        *([f"* Base: {recipe.base}, sha256 {entry['base']['sha256']}"] if recipe.base else []),
        "",
        "| model | task | coefficient | sha256 | file |",
        "|---|---|---|---|---|",
        *[
            f"| {i['name']} | {i['task'] or '-'} | {i['coefficient']:g} | {i['sha256'][:16]} | {i['path']} |"
            for i in entry["inputs"]
        ],
        "",
        *[
            f"* {' '.join(p['include'])}{' without ' + ' '.join(p['exclude']) if p['exclude'] else ''}: "
            f"coefficients {', '.join(f'{c:g}' for c in p['coefficients'])}"
            for p in entry["parts"]
        ],
        *[f"* Beware: {warning}." for warning in warnings],
        "",
        "Use: `unival evaluate FOLDER --recipe RECIPE_OF_THE_TASK`. Nothing was trained in merging; scores are in",
        "the tables of the sweep or evaluation that used this folder.",
        "",
    ]
    (folder / CARD).write_text("\n".join(lines), encoding="utf-8")
