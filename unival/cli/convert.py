"""``unival convert CHECKPOINT OUT [--to folder|fairseq|huggingface|added]``."""

from __future__ import annotations

import argparse

from unival.checkpoint.convert import FORMATS, convert
from unival.core.files import check_file, check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source, output and what to choose between."""
    parser.add_argument("checkpoint", help=".pt file (UnIVAL, OFA, this project's) or checkpoint folder")
    parser.add_argument("out", help="folder to write, or the .pt file with --to fairseq")
    parser.add_argument("--to", choices=FORMATS, default="folder")
    parser.add_argument(
        "--weights", choices=("auto", "raw", "ema"), default="auto", help="auto: EMA when present"
    )
    parser.add_argument(
        "--bpe-dir", help="vocabulary folder of a released file (default: bpe below UNIVAL_WEIGHTS)"
    )
    parser.add_argument(
        "--base",
        help="with --to added: the checkpoint that the training started from; only what moved is written",
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=TEMPLATE",
        help="keep this prompt with the checkpoint, for example 'caption.audio= what does the audio describe?'",
    )


def _pair(text: str) -> tuple[str, str]:
    name, mark, template = text.partition("=")
    if not mark:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=TEMPLATE")
    return name, template


def run(args: argparse.Namespace) -> int:
    """Convert and print the report."""
    (check_file if args.to == "fairseq" else check_folder)(args.out)
    path, report = convert(
        args.checkpoint,
        args.out,
        args.to,
        args.weights,
        args.bpe_dir,
        prompts=dict(args.prompt),
        base=args.base,
    )
    print("\n".join([*report, f"written: {path}"]))
    return 0
