"""``unival evaluate CHECKPOINT TABLE --task NAME``."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from unival import options as cli_options
from unival.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb, then those of the task descriptions (sizes, prompts, answers)."""
    from unival.specs import SPECS, SpecOptions

    parser.add_argument("checkpoint", help="folder with config.json, or a .pt file of a training run")
    parser.add_argument("table", help="table, or table description (YAML)")
    parser.add_argument("--task", choices=sorted(SPECS), help="default: the task the checkpoint was trained on")
    parser.add_argument("--modality", choices=("image", "video", "audio"))
    parser.add_argument("--out", help="folder of the result (default: beside the checkpoint)")
    parser.add_argument("--recipe", help="take task options from this recipe, not from the checkpoint")
    parser.add_argument("--zero-shot", action="store_true", help="ignore the task options kept in the checkpoint")
    parser.add_argument("--train-table", help="training table, to score the trivial baseline beside the model")
    parser.add_argument("--selected-cols", help="columns of a headerless TSV")
    parser.add_argument("--image-dir", help="folder or .tar that relative media paths start from")
    parser.add_argument("--mode", choices=("beamsearch", "allcand", "open"), help="default: the task's own")
    parser.add_argument("--eval-args", type=cli_options.parse_mapping, default={}, help="decoding settings (JSON)")
    parser.add_argument("--weights", choices=("auto", "raw", "ema"), default="auto", help="auto: EMA when present")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="processes on this machine")
    parser.add_argument("--limit", type=int, help="only the first rows")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU when there is one)")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--allow-missing-media", action="store_true", help="score the readable rows; coverage is reported")
    parser.add_argument("--restart", action="store_true", help="discard predictions of an earlier run in --out")
    parser.add_argument("--shard", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--num-shards", type=int, default=1, help=argparse.SUPPRESS)
    cli_options.add_arguments(parser.add_argument_group("task options"), SpecOptions)


def run(args: argparse.Namespace) -> int:
    """Predict, merge, score; prints the metrics and the result's path."""
    out = Path(args.out) if args.out else _default_folder(args)
    if args.restart and args.shard == 0 and out.is_dir():
        shutil.rmtree(out)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1 and "RANK" in os.environ:
        args.shard, args.num_shards = int(os.environ["RANK"]), ranks
    elif args.processes > 1 and args.num_shards == 1:
        _spawn(args.processes, out)
        args.num_shards = args.processes  # every row is predicted by now; this process merges
    evaluation, train = _prepare(args, out)
    evaluation.predict(_progress(args))
    if ranks > 1:
        _wait_for_all()
        if args.shard:
            return 0
    elif "UNIVAL_SHARD_ONLY" in os.environ:
        return 0
    from unival.evaluate import write_result

    result = evaluation.finish()
    if train is not None and result["metrics"]:
        result["baseline"] = evaluation.baseline(train)
    path = write_result(out, result)
    for name, value in result["metrics"].items():
        beside = result.get("baseline", {}).get(name)
        print(f"{name:>12} {value:10.4f}" + (f"   baseline {beside:.4f}" if beside is not None else ""))
    print(f"n = {result['n']}, coverage {result['coverage']:.1%}; result: {path}")
    return 0


def _default_folder(args: argparse.Namespace) -> Path:
    checkpoint, table = Path(args.checkpoint), Path(args.table)
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    return folder / "evaluation" / f"{checkpoint.stem}-{table.name.split('.')[0]}"


def _prepare(args: argparse.Namespace, out: Path) -> tuple[Any, Any]:
    import torch

    from unival.checkpoint import load_checkpoint
    from unival.evaluate import Evaluation, Settings, file_hash
    from unival.specs import SpecOptions, get_spec
    from unival.tables import open_table

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_checkpoint(args.checkpoint, weights=args.weights)
    kept = {} if args.zero_shot or args.recipe else dict(loaded.task_options)
    if args.recipe:
        from unival.recipe import load_recipe

        kept = cli_options.given(load_recipe(args.recipe).options, SpecOptions)
    options = SpecOptions.from_options(**{**kept, **cli_options.given(args, SpecOptions)})
    task = args.task or loaded.task.get("name")
    if task is None:
        raise ConfigError("--task is missing: the checkpoint does not say what it was trained for")
    same = args.task is None or args.task == loaded.task.get("name")
    modality = args.modality or (loaded.task.get("modality") if same else None) or "image"
    spec = get_spec(task, modality)
    if modality not in loaded.model.modalities:
        raise ConfigError(
            f"the checkpoint has no {modality} network (it has: {', '.join(loaded.model.modalities) or 'text only'})"
        )
    table = open_table(args.table, spec.fields, spec.layout_name, args.selected_cols, media_root=args.image_dir)
    train = None
    if args.train_table:
        train = open_table(args.train_table, spec.fields, spec.layout_name, args.selected_cols, media_root=args.image_dir)
    settings = Settings(
        batch_size=args.batch_size,
        limit=args.limit,
        num_workers=args.num_workers,
        shard=args.shard,
        num_shards=args.num_shards,
        device=device,
        dtype=args.precision,
        allow_missing_media=args.allow_missing_media,
        decoding=args.eval_args,
        mode=args.mode,
    )
    identity = {
        "checkpoint": str(args.checkpoint),
        "checkpoint_sha256": file_hash(Path(args.checkpoint)),
        "weights": loaded.weights,
        "table": str(args.table),
        "data_sha256": file_hash(Path(table.path)),
        "options": cli_options.to_dict(options),
        "precision": args.precision,
    }
    model = loaded.model.to(device).to(getattr(torch, args.precision))
    return Evaluation(model, loaded.vocabulary, spec, table, options, out, identity, settings), train


def _spawn(processes: int, out: Path) -> None:
    words = sys.argv[1:]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "unival", *[w for w in words if w != "--restart"], "--out", str(out)]
            + ["--shard", str(shard), "--num-shards", str(processes)],
            env={**os.environ, "UNIVAL_SHARD_ONLY": "1"},
        )
        for shard in range(processes)
    ]
    failed = [code for code in (process.wait() for process in running) if code]
    if failed:
        raise ConfigError(f"{len(failed)} of {processes} processes failed; run again to go on with the rest")


def _wait_for_all() -> None:
    import torch.distributed

    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _progress(args: argparse.Namespace) -> Any:
    if args.shard:
        return iter
    from tqdm import tqdm

    return lambda batches: tqdm(batches, desc="predict", unit="batch", mininterval=1.0)
