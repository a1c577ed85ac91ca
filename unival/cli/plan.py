"""``unival plan RECIPE``: rows, updates, effective batch, memory and time, before anything is trained."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from unival.cli.train import resolve
from unival.errors import ConfigError, shortened

PASSES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Any option of training may follow the recipe."""
    parser.add_argument("recipe", help="YAML recipe, for example configs/tiny/caption.yaml")
    parser.add_argument("--fit", action="store_true", help="find the largest batch that fits in memory")
    parser.add_argument(
        "--memory",
        type=_gigabytes,
        metavar="GB",
        help="with --fit: gigabytes (1e9 bytes) that a process may take; "
        "default: what is free, on the GPU if there is one",
    )
    parser.add_argument(
        "--try",
        action="store_true",
        dest="tried",
        help="with --fit: train three updates with that batch, and with smaller ones where it does not fit after all",
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Print the plan."""
    for option, given in (("--memory", args.memory is not None), ("--try", args.tried)):
        if given and not args.fit:
            raise ConfigError(f"{option} says how --fit is done: give --fit, or leave {option} out")
    from unival.train import plan

    arguments = resolve(args.recipe, extra)
    planned = plan(arguments, args.fit, args.memory)
    print(planned.text, flush=True)
    if args.tried:
        assert planned.fitted is not None
        try_batches(arguments, planned.fitted.rows, planned.fitted.limit)
    return 0


def try_batches(arguments: Sequence[str], rows: int, limit: int) -> int:
    """Train a few updates with ``rows`` rows, or with three quarters of them until ``limit`` bytes are enough; print
    what each took and return the rows.

    Raises:
        ConfigError: a run of a single row takes more, or fails.
    """
    from unival.launch.trial import try_run
    from unival.modeling.memory import MIB

    while True:
        trial = try_run(arguments, rows)
        taken = "" if trial.peak is None else f", {trial.peak / MIB:,.0f} MiB at most"
        if trial.done and trial.peak is not None and trial.peak <= limit:
            print(f"tried: three updates of {rows} rows{taken}", flush=True)
            return rows
        if not (trial.done or trial.out_of_memory):
            raise ConfigError(f"--try: a run of {rows} rows failed: {shortened(trial.said, 300)}")
        problem = f"{rows} rows do not fit in {limit / MIB:,.0f} MiB{taken}"
        print(f"tried: {problem}", flush=True)
        if rows == 1:
            raise ConfigError(
                f"--try: {problem}. Take a smaller model or smaller media, bf16, or checkpoint_activations"
            )
        rows = rows * 3 // 4


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{shortened(text, 40)}' is no number of gigabytes above 0")
    return value
