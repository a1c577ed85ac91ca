"""``unival evaluate CHECKPOINT [TABLE] [--task NAME | --recipe FILE]``."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.core import options as cli_options
from unival.core.command import INTERRUPTED, Parser, report_failure
from unival.core.modalities import NAMES
from unival.errors import ConfigError

if TYPE_CHECKING:
    from unival.evaluate.run import Evaluation
    from unival.tables import Table

MODES = ("open", "trie", "rank", "beamsearch", "allcand")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb, then those of the task descriptions (sizes, prompts, answers)."""
    from unival.specs import all_options

    parser.add_argument("checkpoint", help="folder with config.json, or a .pt file of a training run")
    parser.add_argument(
        "table", nargs="?", help="table or table description (default: data.valid of the recipe)"
    )
    parser.add_argument("--task", help="default: the recipe's, else the one the checkpoint was trained on")
    parser.add_argument("--modality", choices=NAMES)
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
    parser.add_argument(
        "--bpe-dir",
        help="vocabulary folder, for released files, which carry none (default: bpe below UNIVAL_WEIGHTS)",
    )
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
    parser.set_defaults(scored=True)
    cli_options.add_arguments(parser.add_argument_group("task options"), all_options())


def _words(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read arguments of the verb, for callers from Python."""
    parser = Parser(prog="unival evaluate", allow_abbrev=False)
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
        f"n = {result['n']}, coverage {result['coverage']:.1%}; "
        f"result: {Path(result['folder']) / 'result.json'}"
    )
    return 0


def share(args: dict[str, Any]) -> int:
    """Predict one share, in a process that :func:`evaluate` started with these arguments."""
    try:
        predict(argparse.Namespace(**args))
    except KeyboardInterrupt:
        return INTERRUPTED  # the first process says so
    except Exception as error:
        return report_failure(error)
    return 0


def evaluate(args: argparse.Namespace) -> dict[str, Any] | None:
    """Evaluate with the verb's arguments; returns the result, None where only a share was predicted."""
    from unival.evaluate import write_result

    predicted = predict(args)
    if predicted is None:
        return None
    evaluation, train, out = predicted
    result = {"folder": str(out), **evaluation.finish()}
    if train is not None and result["metrics"]:
        result["baseline"] = evaluation.baseline(train)
    write_result(out, result)
    return result


def predict(args: argparse.Namespace) -> tuple[Evaluation, Table | None, Path] | None:
    """Predict with the verb's arguments, in as many processes as they ask for.

    Returns what :func:`unival.evaluate.prepare.prepare` made, None where only a share was predicted.
    """
    from unival.evaluate import processes
    from unival.evaluate.prepare import prepare

    rank, size = processes.rank_and_size()
    started = processes.PARENT in os.environ
    share_only = args.shard is not None
    if args.processes > 1 and (share_only or size > 1):
        raise ConfigError("--processes is for one machine, without --shard or a launcher")
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
    return None if share_only or rank > 0 else (evaluation, train, out)


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
