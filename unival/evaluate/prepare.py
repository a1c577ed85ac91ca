"""From a request to an evaluation: checkpoint, recipe, table and options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unival.checkpoint.catalogue import local_path
from unival.checkpoint.header import CODES_AND_BINS
from unival.checkpoint.load import Loaded, load_checkpoint
from unival.checkpoint.resolve import Resolved, Wanted, resolve
from unival.core import options as cli_options
from unival.core.device import device_named
from unival.core.files import check_folder
from unival.core.provenance import file_hash, table_hash
from unival.errors import ConfigError, OutputError
from unival.evaluate.recipe import EvaluationRecipe, read_recipe
from unival.evaluate.request import Request
from unival.evaluate.run import Evaluation, Settings
from unival.evaluate.scoring import Scoring
from unival.specs import TaskSpec
from unival.specs.inputs import check_pixels
from unival.tables import Table, open_table


@dataclass(frozen=True)
class Prepared:
    """An evaluation that is ready to predict, the training table of its baseline, and its folder."""

    evaluation: Evaluation
    train: Table | None
    folder: Path


def prepare(request: Request) -> Prepared:
    """Load checkpoint and tables. The device is the CPU, and the share all of the table, unless asked for.

    Raises ConfigError, CheckpointError and DataError for what cannot be evaluated.
    """
    request = replace(request, checkpoint=str(local_path(request.checkpoint)))
    recipe = read_recipe(request.recipe) if request.recipe else None
    extra = recipe.extra if recipe else {}
    # a folder holds one set of weights, so that a recipe has nothing to choose there
    asked = None if Path(request.checkpoint).is_dir() else extra.get("uses_ema")
    weights = request.weights or {True: "ema", False: "raw", None: "auto"}[asked]
    loaded = load_checkpoint(
        request.checkpoint, weights, None, request.bpe_dir or extra.get("bpe_dir"), _counts(extra)
    )
    what = resolve(loaded.header, _asked(request), _wanted(recipe), request.zero_shot)
    options, spec = what.options, what.spec
    _check_networks(spec, loaded)
    check_pixels(options, loaded.model.config.image)
    grid = loaded.model.config.transformer.code_image_size
    if spec.name == "image_gen" and options.code_image_size != grid:
        raise ConfigError(
            f"code_image_size is {options.code_image_size}, the checkpoint draws pictures of {grid} pixels: "
            f"give --code-image-size {grid}"
        )

    source = request.table or (recipe.table if recipe else None)
    if source is None:
        raise ConfigError("no table: name one, or a recipe with data.valid")

    # a table that is only predicted needs no targets, and one whose predictions go to a server may lack them
    columns_read = [
        replace(f, required=f.required and not (f.target and request.results))
        for f in spec.fields
        if request.scored or not f.target
    ]

    def open_for(table: Any) -> Table:
        columns, root = (_named(request, extra, name) for name in ("selected_cols", "image_dir"))
        return open_table(table, columns_read, spec.layout_name, columns, media_root=root)

    table = open_for(source)
    spec.check(table)
    described = source if isinstance(source, str) else table.path
    identity = {
        "checkpoint_sha256": file_hash(request.checkpoint),
        "weights": loaded.weights,
        "data_sha256": table_hash(described, table.files),
        "options": cli_options.to_dict(options),
        "precision": request.precision,
    }
    about = {
        "checkpoint": str(request.checkpoint),
        "table": os.path.abspath(table.path),
        "description": None if described == table.path and isinstance(source, str) else source,
        "recipe": request.recipe,
        "log": _training_log(Path(request.checkpoint)),
    }
    device = device_named(request.device or "cpu")
    model = loaded.model.to(device).to(getattr(torch, request.precision))
    out = Path(request.out) if request.out else _default_folder(Path(request.checkpoint), spec, described)
    try:
        check_folder(out)
    except OutputError as error:
        raise OutputError(f"{error}; name another folder with --out") from None
    settings = _settings(request, extra, what)
    evaluation = Evaluation(model, loaded.vocabulary, spec, table, options, out, identity, settings, about)
    return Prepared(evaluation, open_for(request.train_table) if request.train_table else None, out)


def _asked(request: Request) -> Wanted:
    """What the request asks for."""
    return Wanted(request.task, request.modality, request.mode, request.options, request.eval_args)


def _wanted(recipe: EvaluationRecipe | None) -> Wanted | None:
    if recipe is None:
        return None
    mode, decoding = recipe.extra.get("val_inference_type"), recipe.extra.get("eval_args", {})
    return Wanted(recipe.task, recipe.modality, mode, recipe.options, decoding)


def _counts(extra: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of codes and bins that a recipe names."""
    return {ours: extra[name] for ours, name in CODES_AND_BINS.items() if name in extra}


def _named(request: Request, extra: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """An option of the request, else of the recipe."""
    value = getattr(request, name)
    return value if value is not None else extra.get(name, default)


def _check_networks(spec: TaskSpec, loaded: Loaded) -> None:
    modalities = loaded.model.modalities
    if spec.reads_media and spec.modality not in modalities:
        has = ", ".join(modalities) or "text only"
        raise ConfigError(f"the checkpoint has no {spec.modality} network (it has: {has})")


def _settings(request: Request, extra: Mapping[str, Any], what: Resolved) -> Settings:
    metrics = request.metrics or [name for name in extra.get("caption_metrics", "").split(",") if name]
    frequencies = _named(request, extra, "document_frequencies", Scoring.document_frequencies)
    return Settings(
        batch_size=request.batch_size,
        limit=request.limit,
        num_workers=request.num_workers,
        shard=request.shard or 0,
        num_shards=request.num_shards,
        device=request.device or "cpu",
        dtype=request.precision,
        allow_missing_media=request.allow_missing_media,
        decoding=what.decoding,
        mode=what.mode,
        scored=request.scored,
        scoring=Scoring(
            metrics=tuple(metrics) or Scoring.metrics,
            tokenizer=request.tokenizer or Scoring.tokenizer,
            document_frequencies=frequencies,
            java=request.java_settings,
        ),
        main_metric=request.main_metric,
    )


def _default_folder(checkpoint: Path, spec: TaskSpec, table: str) -> Path:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    name = spec.name if spec.modality == "image" else f"{spec.modality}_{spec.name}"
    return folder / "evaluation" / f"{checkpoint.stem}-{name}-{Path(table).name.split('.')[0]}"


def _training_log(checkpoint: Path) -> str | None:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    log = folder / "train_log.jsonl"
    return str(log.resolve()) if log.is_file() else None
