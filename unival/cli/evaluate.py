"""``unival evaluate CHECKPOINT [TABLE] [--task NAME | --recipe FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival import options as cli_options
from unival.errors import ConfigError, UnivalError

if TYPE_CHECKING:
    from unival.evaluate import Evaluation

MODES = ("open", "trie", "rank", "beamsearch", "allcand")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb, then those of the task descriptions (sizes, prompts, answers)."""
    from unival.specs import SpecOptions

    parser.add_argument("checkpoint", help="folder with config.json, or a .pt file of a training run")
    parser.add_argument(
        "table", nargs="?", help="table or table description (default: data.valid of the recipe)"
    )
    parser.add_argument("--task", help="default: the recipe's, else the one the checkpoint was trained on")
    parser.add_argument("--modality", choices=("image", "video", "audio"))
    parser.add_argument("--out", help="folder of the result (default: beside the checkpoint)")
    parser.add_argument(
        "--recipe", help="take prompts and settings from this recipe, not from the checkpoint"
    )
    parser.add_argument(
        "--zero-shot", action="store_true", help="ignore prompts and options kept in the checkpoint"
    )
    parser.add_argument(
        "--train-table", help="training table, to score the trivial baseline beside the model"
    )
    parser.add_argument("--selected-cols", help="columns of a headerless TSV")
    parser.add_argument("--image-dir", help="folder or .tar that relative media paths start from")
    parser.add_argument("--bpe-dir", help="vocabulary folder, for released files, which carry none")
    parser.add_argument("--mode", choices=MODES, help="answers: open; or from a closed list by trie or rank")
    parser.add_argument(
        "--eval-args", type=cli_options.parse_mapping, default={}, help="decoding settings (JSON)"
    )
    parser.add_argument(
        "--metrics", type=_words, help="captions: of bleu,rouge,cider,meteor,spice (last two: Java)"
    )
    parser.add_argument("--tokenizer", help="captions: ptb, ptb-java or split")
    parser.add_argument("--document-frequencies", help="captions: corpus, or a cached table for CIDEr")
    parser.add_argument("--weights", choices=("auto", "raw", "ema"), help="auto: EMA when present")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="processes on this machine")
    parser.add_argument("--shard", type=int, help="predict only this of --num-shards shares, merge nothing")
    parser.add_argument("--num-shards", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first items")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPUs when there are some)")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument(
        "--allow-missing-media", action="store_true", help="score the readable rows; coverage is reported"
    )
    parser.add_argument(
        "--restart", action="store_true", help="discard predictions of an earlier run in --out"
    )
    cli_options.add_arguments(parser.add_argument_group("task options"), SpecOptions)


def _words(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read arguments of the verb, for callers from Python."""
    parser = argparse.ArgumentParser(prog="unival evaluate", allow_abbrev=False)
    add_arguments(parser)
    return parser.parse_args(list(words))


def run(args: argparse.Namespace) -> int:
    """Predict, merge, score; prints the metrics and the result's path."""
    result = evaluate(args)
    if result is None:
        return 0
    for name, value in result["metrics"].items():
        low, high = result.get("intervals", {}).get(name, (None, None))
        beside = result.get("baseline", {}).get(name)
        line = f"{name:>12} {value:10.4f}"
        line += f"   95 % [{low:.4f}, {high:.4f}]" if low is not None else ""
        print(line + (f"   baseline {beside:.4f}" if beside is not None else ""))
    if not result["metrics"]:
        print("the table carries no targets: predictions only")
    for warning in filter(None, [result.get("scoring", {}).get("warning")]):
        print(f"warning: {warning}")
    print(
        f"n = {result['n']}, coverage {result['coverage']:.1%}; result: {Path(result['folder']) / 'result.json'}"
    )
    return 0


def share(args: dict[str, Any]) -> int:
    """Predict one share, in a process that :func:`evaluate` started with these arguments."""
    try:
        evaluate(argparse.Namespace(**args))
    except UnivalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(args: argparse.Namespace) -> dict[str, Any] | None:
    """Evaluate with the verb's arguments and return the result; None in a process that only predicts a share."""
    from unival.evaluate import processes, write_result

    rank, size = processes.rank_and_size()
    started = processes.PARENT in os.environ
    share_only = args.shard is not None
    if args.processes > 1 and (share_only or size > 1):
        raise ConfigError("--processes is for one machine without --shard or a launcher: give one of them")
    if size > 1:
        args.shard, args.num_shards = rank, size
        args.device = args.device or _local_device()
        processes.join()
    several = args.processes if not share_only and size == 1 else 1
    available = processes.devices(args.device)
    args.device = available[0]
    if several > 1:
        args.num_shards = several
    args.shard = args.shard or 0

    evaluation, train, out = prepare(args)
    if rank == 0 and not started:
        if args.restart and (out / "run.json").is_file():
            shutil.rmtree(out)
        evaluation.claim()
    if size > 1:
        processes.wait()
    shared = {**vars(args), "out": str(out), "restart": False, "processes": 1}
    running = processes.start(shared, several, available)
    try:
        evaluation.predict(_progress(quiet=args.shard > 0))
    except BaseException:
        processes.stop(running)
        raise
    processes.finish(running)
    if size > 1:
        processes.wait()
        processes.leave()
    if share_only or rank > 0:
        return None
    result = {"folder": str(out), **evaluation.finish()}
    if train is not None and result["metrics"]:
        result["baseline"] = evaluation.baseline(train)
    write_result(out, result)
    return result


def prepare(args: argparse.Namespace) -> tuple[Evaluation, Any, Path]:
    """Load checkpoint and table: (evaluation, training table or None, folder of the result)."""
    import torch

    from unival.checkpoint import load_checkpoint
    from unival.evaluate import Evaluation, Settings, file_hash, table_hash
    from unival.evaluate.recipe import EvaluationRecipe, read_recipe, resolve_task
    from unival.evaluate.scoring import Scoring
    from unival.specs import SpecOptions, get_spec
    from unival.tables import open_table

    recipe = read_recipe(args.recipe) if args.recipe else EvaluationRecipe()
    extra = recipe.extra
    weights = args.weights or {True: "ema", False: "raw", None: "auto"}[extra.get("uses_ema")]
    header = _header(Path(args.checkpoint))
    loaded = load_checkpoint(args.checkpoint, weights, _vocabulary(args, extra, header))
    own = not args.zero_shot and not args.recipe
    validated = header.get("decoding", {}) if own and not args.task else {}
    kept = (
        {**({"prompts": loaded.prompts} if loaded.prompts else {}), **loaded.task_options}
        if own
        else recipe.options
    )
    given = cli_options.given(args, SpecOptions)
    if {"answers", "ans2label_dict", "ans2label_file"} & set(given):  # one list replaces the other
        kept = {k: v for k, v in kept.items() if k not in ("answers", "ans2label_dict", "ans2label_file")}
    known = {
        f.name for f in fields(SpecOptions)
    }  # a newer version's checkpoint may keep options unknown here
    options = SpecOptions.from_options(**{**{k: v for k, v in kept.items() if k in known}, **given})

    named = args.task or recipe.task or loaded.task.get("name")
    if named is None:
        raise ConfigError("--task is missing: the checkpoint does not say what it was trained for")
    task, modality = resolve_task(named, args.modality)
    if modality is None and not args.task:
        modality = recipe.modality or loaded.task.get("modality")
    elif modality is None and task == loaded.task.get("name") and own:
        modality = loaded.task.get("modality")
    modality = modality or "image"
    spec = get_spec(task, modality)
    if task == "pretrain":
        raise ConfigError("the checkpoint was trained on several tasks: name the one to evaluate with --task")
    if modality not in loaded.model.modalities:
        has = ", ".join(loaded.model.modalities) or "text only"
        raise ConfigError(f"the checkpoint has no {modality} network (it has: {has})")

    source = args.table or recipe.table
    if source is None:
        raise ConfigError("no table: name one, or a recipe with data.valid")
    columns = args.selected_cols or extra.get("selected_cols")
    root = args.image_dir or extra.get("image_dir")

    def open_for(table: Any) -> Any:
        return open_table(table, spec.fields, spec.layout_name, columns, media_root=root)

    table = open_for(source)
    settings = Settings(
        batch_size=args.batch_size,
        limit=args.limit,
        num_workers=args.num_workers,
        shard=args.shard,
        num_shards=args.num_shards,
        device=args.device,
        dtype=args.precision,
        allow_missing_media=args.allow_missing_media,
        decoding={**validated.get("settings", {}), **extra.get("eval_args", {}), **args.eval_args},
        mode=args.mode or extra.get("val_inference_type") or validated.get("mode"),
        scoring=Scoring(
            metrics=tuple(args.metrics or ()) or _words(extra.get("caption_metrics", "")) or Scoring.metrics,
            tokenizer=args.tokenizer or Scoring.tokenizer,
            document_frequencies=args.document_frequencies
            or extra.get("document_frequencies", Scoring.document_frequencies),
        ),
    )
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
        "description": None if isinstance(source, str) and described == table.path else source,
        "recipe": args.recipe,
        "log": _training_log(Path(args.checkpoint)),
    }
    out = Path(args.out) if args.out else _default_folder(Path(args.checkpoint), task, modality, described)
    model = loaded.model.to(args.device).to(getattr(torch, args.precision))
    evaluation = Evaluation(model, loaded.vocabulary, spec, table, options, out, identity, settings, about)
    return evaluation, open_for(args.train_table) if args.train_table else None, out


def _header(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint of ours says beside its weights; empty for released files."""
    from unival.checkpoint import read_header

    if checkpoint.is_dir():
        config = checkpoint / "config.json"
        return json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return read_header(checkpoint)["task_state"].get("unival", {})


def _vocabulary(args: argparse.Namespace, extra: Mapping[str, Any], header: Mapping[str, Any]) -> Any:
    """The vocabulary to read a released file with; None for checkpoints that carry their own."""
    from unival.vocabulary import Vocabulary

    if Path(args.checkpoint).is_dir() or "vocabulary" in header:
        return None
    folder = args.bpe_dir or extra.get("bpe_dir")
    if folder is None:
        raise ConfigError(
            f"'{args.checkpoint}' carries no vocabulary: give the folder of its BPE files with --bpe-dir"
        )
    return Vocabulary.load(folder, extra.get("code_dict_size", 8192), extra.get("num_bins", 1000))


def _default_folder(checkpoint: Path, task: str, modality: str, table: str) -> Path:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    name = task if modality == "image" else f"{modality}_{task}"
    return folder / "evaluation" / f"{checkpoint.stem}-{name}-{Path(table).name.split('.')[0]}"


def _training_log(checkpoint: Path) -> str | None:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    log = folder / "train_log.jsonl"
    return str(log.resolve()) if log.is_file() else None


def _local_device() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _progress(quiet: bool) -> Callable[[Any], Iterable[Any]]:
    from unival.evaluate.processes import while_parent_lives

    if quiet:
        return while_parent_lives
    from tqdm import tqdm

    return lambda batches: tqdm(batches, desc="predict", unit="batch", mininterval=1.0)
