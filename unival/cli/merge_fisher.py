"""Estimate the diagonal Fisher information of a model on a table, for method "fisher"."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Checkpoint, recipe of its task, and how much to read."""
    parser.add_argument("checkpoint", help="folder with config.json, or a .pt file of a training run")
    parser.add_argument("--recipe", required=True, help="recipe of the task: prompts, sizes, table")
    parser.add_argument("--table", help="default: data.valid of the recipe; training rows are better")
    parser.add_argument("--image-dir", help="folder or .tar that relative media paths start from")
    parser.add_argument("--weights", choices=("raw", "ema"), default="raw")
    parser.add_argument("--samples", type=int, default=256, help="rows to take gradients of, one by one")
    parser.add_argument(
        "--targets", choices=("model", "data"), default="model",
        help="model: targets drawn from the model, the Fisher information proper; data: the table's targets",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", required=True, help="file to write (.safetensors)")


def run(args: argparse.Namespace) -> int:
    """Write the file and say how many rows it rests on."""
    from unival.merge.fisher import estimate
    from unival.merge.tables import Measured

    options = {"weights": args.weights, "device": args.device}
    if args.image_dir:
        options["image_dir"] = args.image_dir
    table = Measured(args.recipe, table=args.table, limit=args.samples, options=options)
    count = estimate(args.checkpoint, table, Path(args.out), args.targets, args.seed)
    print(f"{args.out}: diagonal Fisher information over {count} rows")
    return 0
