"""From the arguments of ``unival evaluate`` to an evaluation: checkpoint, recipe, table and options."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unival.checkpoint.header import CODES_AND_BINS
from unival.checkpoint.load import Loaded, load_checkpoint
from unival.checkpoint.resolve import Resolved, Wanted, resolve
from unival.core import options as cli_options
from unival.core.files import check_folder
from unival.core.provenance import file_hash, table_hash
from unival.errors import ConfigError, OutputError
from unival.evaluate.recipe import EvaluationRecipe, read_recipe
from unival.evaluate.run import Evaluation, Settings
from unival.evaluate.scoring import Scoring
from unival.specs import TaskSpec, all_options
from unival.tables import Table, open_table


def prepare(args: Namespace) -> tuple[Evaluation, Table | None, Path]:
    """Load checkpoint and tables: (evaluation, training table or None, folder of the result).

    Raises ConfigError, CheckpointError and DataError for what cannot be evaluated.
    """
    recipe = read_recipe(args.recipe) if args.recipe else None
    extra = recipe.extra if recipe else {}
    # a folder holds one set of weights, so that a recipe has nothing to choose there
    asked = None if Path(args.checkpoint).is_dir() else extra.get("uses_ema")
    weights = args.weights or {True: "ema", False: "raw", None: "auto"}[asked]
    loaded = load_checkpoint(
        args.checkpoint, weights, None, args.bpe_dir or extra.get("bpe_dir"), _counts(extra)
    )
    what = resolve(loaded.header, _asked(args), _wanted(recipe), args.zero_shot)
    options, spec = what.options, what.spec
    _check_networks(spec, loaded)
    grid = loaded.model.config.transformer.code_image_size
    if spec.name == "image_gen" and options.code_image_size != grid:
        raise ConfigError(
            f"code_image_size is {options.code_image_size}, the checkpoint draws pictures of {grid} pixels: "
            f"give --code-image-size {grid}"
        )

    source = args.table or (recipe.table if recipe else None)
    if source is None:
        raise ConfigError("no table: name one, or a recipe with data.valid")

    # a table that is only predicted needs no targets
    columns_read = spec.fields if args.scored else [f for f in spec.fields if not f.target]

    def open_for(table: Any) -> Table:
        columns, root = (_named(args, extra, name) for name in ("selected_cols", "image_dir"))
        return open_table(table, columns_read, spec.layout_name, columns, media_root=root)

    table = open_for(source)
    described = source if isinstance(source, str) else table.path
    identity = {
        "checkpoint_sha256": file_hash(args.checkpoint),
        "weights": loaded.weights,
        "data_sha256": table_hash(described, table.files),
        "options": cli_options.to_dict(options),
        "precision": args.precision,
    }
    about = {
        "checkpoint": str(args.checkpoint),
        "table": os.path.abspath(table.path),
        "description": None if described == table.path and isinstance(source, str) else source,
        "recipe": args.recipe,
        "log": _training_log(Path(args.checkpoint)),
    }
    model = loaded.model.to(args.device).to(getattr(torch, args.precision))
    out = Path(args.out) if args.out else _default_folder(Path(args.checkpoint), spec, described)
    try:
        check_folder(out)
    except OutputError as error:
        raise OutputError(f"{error}; name another folder with --out") from None
    settings = _settings(args, extra, what)
    evaluation = Evaluation(model, loaded.vocabulary, spec, table, options, out, identity, settings, about)
    return evaluation, open_for(args.train_table) if args.train_table else None, out


def _asked(args: Namespace) -> Wanted:
    """What the command line asks for."""
    options = cli_options.given(args, all_options())
    return Wanted(args.task, args.modality, args.mode, options, args.eval_args)


def _wanted(recipe: EvaluationRecipe | None) -> Wanted | None:
    if recipe is None:
        return None
    mode, decoding = recipe.extra.get("val_inference_type"), recipe.extra.get("eval_args", {})
    return Wanted(recipe.task, recipe.modality, mode, recipe.options, decoding)


def _counts(extra: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of codes and bins that a recipe names."""
    return {ours: extra[name] for ours, name in CODES_AND_BINS.items() if name in extra}


def _named(args: Namespace, extra: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """An option of the command line, else of the recipe."""
    value = getattr(args, name, None)
    return value if value is not None else extra.get(name, default)


def _check_networks(spec: TaskSpec, loaded: Loaded) -> None:
    modalities = loaded.model.modalities
    if spec.reads_media and spec.modality not in modalities:
        has = ", ".join(modalities) or "text only"
        raise ConfigError(f"the checkpoint has no {spec.modality} network (it has: {has})")


def _settings(args: Namespace, extra: Mapping[str, Any], what: Resolved) -> Settings:
    metrics = args.metrics or [name for name in extra.get("caption_metrics", "").split(",") if name]
    frequencies = _named(args, extra, "document_frequencies", Scoring.document_frequencies)
    return Settings(
        batch_size=args.batch_size,
        limit=args.limit,
        num_workers=args.num_workers,
        shard=args.shard,
        num_shards=args.num_shards,
        device=args.device,
        dtype=args.precision,
        allow_missing_media=args.allow_missing_media,
        decoding=what.decoding,
        mode=what.mode,
        scored=args.scored,
        scoring=Scoring(
            metrics=tuple(metrics) or Scoring.metrics,
            tokenizer=args.tokenizer or Scoring.tokenizer,
            document_frequencies=frequencies,
        ),
    )


def _default_folder(checkpoint: Path, spec: TaskSpec, table: str) -> Path:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    name = spec.name if spec.modality == "image" else f"{spec.modality}_{spec.name}"
    return folder / "evaluation" / f"{checkpoint.stem}-{name}-{Path(table).name.split('.')[0]}"


def _training_log(checkpoint: Path) -> str | None:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    log = folder / "train_log.jsonl"
    return str(log.resolve()) if log.is_file() else None
