"""From the arguments of ``unival evaluate`` to an evaluation: checkpoint, recipe, table and options."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unival.checkpoint.load import Loaded, load_checkpoint
from unival.core import options as cli_options
from unival.core.provenance import file_hash, table_hash
from unival.core.torchfile import read_header
from unival.errors import ConfigError
from unival.evaluate.recipe import EvaluationRecipe, read_recipe, resolve_task
from unival.evaluate.run import Evaluation, Settings
from unival.evaluate.scoring import Scoring
from unival.specs import SpecOptions, TaskSpec, get_spec
from unival.tables import Table, open_table
from unival.vocabulary.vocabulary import Vocabulary

LISTS = ("answers", "ans2label_dict", "ans2label_file")


@dataclass(frozen=True)
class _Sources:
    """Where settings come from, the later winning: the checkpoint or a recipe, then the command line."""

    args: Namespace
    recipe: EvaluationRecipe
    loaded: Loaded
    header: Mapping[str, Any]

    @property
    def own(self) -> bool:
        """True when the checkpoint's own task options and prompts count."""
        return not self.args.zero_shot and not self.args.recipe

    @property
    def validated(self) -> Mapping[str, Any]:
        """Answer mode and decoding settings with which training chose the checkpoint, for its own task."""
        return self.header.get("decoding", {}) if self.own and not self.args.task else {}

    def named(self, name: str, default: Any = None) -> Any:
        """An option of the command line, else of the recipe."""
        value = getattr(self.args, name, None)
        return value if value is not None else self.recipe.extra.get(name, default)


def prepare(args: Namespace) -> tuple[Evaluation, Table | None, Path]:
    """Load checkpoint and tables: (evaluation, training table or None, folder of the result).

    Raises ConfigError, CheckpointError and DataError for what cannot be evaluated.
    """
    recipe = read_recipe(args.recipe) if args.recipe else EvaluationRecipe()
    header = _header(Path(args.checkpoint))
    weights = args.weights or {True: "ema", False: "raw", None: "auto"}[recipe.extra.get("uses_ema")]
    loaded = load_checkpoint(args.checkpoint, weights, _vocabulary(args, recipe, header))
    sources = _Sources(args, recipe, loaded, header)
    mode = args.mode or recipe.extra.get("val_inference_type") or sources.validated.get("mode")
    options, spec = _options(sources, mode), _spec(sources)
    grid = loaded.model.config.transformer.code_image_size
    if spec.name == "image_gen" and options.code_image_size != grid:
        raise ConfigError(
            f"code_image_size is {options.code_image_size}, the checkpoint draws pictures of {grid} pixels: "
            f"give --code-image-size {grid}"
        )

    source = args.table or recipe.table
    if source is None:
        raise ConfigError("no table: name one, or a recipe with data.valid")

    # a table that is only predicted needs no targets
    columns_read = spec.fields if args.scored else [f for f in spec.fields if not f.target]

    def open_for(table: Any) -> Table:
        columns, root = sources.named("selected_cols"), sources.named("image_dir")
        return open_table(table, columns_read, spec.layout_name, columns, media_root=root)

    table = open_for(source)
    described = source if isinstance(source, str) else table.path
    identity = {
        "checkpoint_sha256": file_hash(args.checkpoint),
        "weights": loaded.weights,
        "data_sha256": table_hash(described, table.path),
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
    settings = _settings(sources, mode)
    evaluation = Evaluation(model, loaded.vocabulary, spec, table, options, out, identity, settings, about)
    return evaluation, open_for(args.train_table) if args.train_table else None, out


def _options(sources: _Sources, mode: str | None) -> SpecOptions:
    kept = sources.recipe.options
    if sources.own:
        kept = sources.loaded.kept_options()
    given = cli_options.given(sources.args, SpecOptions)
    if set(LISTS) & set(given):  # one closed list replaces another
        kept = {name: value for name, value in kept.items() if name not in LISTS}
    merged = {**kept, **given}
    if mode == "open":  # no list is needed then, not even the one that training used
        merged = {name: value for name, value in merged.items() if name not in LISTS}
    return SpecOptions.from_options(**merged)


def _spec(sources: _Sources) -> TaskSpec:
    args, recipe, trained = sources.args, sources.recipe, sources.loaded.task
    named = args.task or recipe.task or trained.get("name")
    if named is None:
        raise ConfigError("--task is missing: the checkpoint does not say what it was trained for")
    task, modality = resolve_task(named, args.modality)
    if task == "pretrain":
        raise ConfigError("the checkpoint was trained on several tasks: name the one to evaluate with --task")
    if modality is None and not args.task:
        modality = recipe.modality
    if modality is None and task == trained.get("name") and not args.recipe:
        modality = trained.get("modality")
    spec = get_spec(task, modality)
    modalities = sources.loaded.model.modalities
    if spec.reads_media and spec.modality not in modalities:
        has = ", ".join(modalities) or "text only"
        raise ConfigError(f"the checkpoint has no {spec.modality} network (it has: {has})")
    return spec


def _settings(sources: _Sources, mode: str | None) -> Settings:
    args, extra = sources.args, sources.recipe.extra
    metrics = args.metrics or [name for name in extra.get("caption_metrics", "").split(",") if name]
    return Settings(
        batch_size=args.batch_size,
        limit=args.limit,
        num_workers=args.num_workers,
        shard=args.shard,
        num_shards=args.num_shards,
        device=args.device,
        dtype=args.precision,
        allow_missing_media=args.allow_missing_media,
        decoding={**sources.validated.get("settings", {}), **extra.get("eval_args", {}), **args.eval_args},
        mode=mode,
        scored=args.scored,
        scoring=Scoring(
            metrics=tuple(metrics) or Scoring.metrics,
            tokenizer=args.tokenizer or Scoring.tokenizer,
            document_frequencies=sources.named("document_frequencies", Scoring.document_frequencies),
        ),
    )


def trained_for(checkpoint: Path) -> dict[str, Any]:
    """Return {"name": task, "modality": ...} that a checkpoint says it was trained for, {} when it does not."""
    return dict(_header(checkpoint).get("task") or {})


def _header(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint of ours says beside its weights; empty for released files."""
    if checkpoint.is_dir():
        config = checkpoint / "config.json"
        return json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return read_header(checkpoint)["task_state"].get("unival", {})


def _vocabulary(args: Namespace, recipe: EvaluationRecipe, header: Mapping[str, Any]) -> Vocabulary | None:
    """The vocabulary to read a released file with; None for checkpoints that carry their own."""
    if Path(args.checkpoint).is_dir() or "vocabulary" in header:
        return None
    folder = args.bpe_dir or recipe.extra.get("bpe_dir")
    if folder is None:
        raise ConfigError(
            f"'{args.checkpoint}' carries no vocabulary: give the folder of its BPE files with --bpe-dir"
        )
    return Vocabulary.load(
        folder, recipe.extra.get("code_dict_size", 8192), recipe.extra.get("num_bins", 1000)
    )


def _default_folder(checkpoint: Path, spec: TaskSpec, table: str) -> Path:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    name = spec.name if spec.modality == "image" else f"{spec.modality}_{spec.name}"
    return folder / "evaluation" / f"{checkpoint.stem}-{name}-{Path(table).name.split('.')[0]}"


def _training_log(checkpoint: Path) -> str | None:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    log = folder / "train_log.jsonl"
    return str(log.resolve()) if log.is_file() else None
