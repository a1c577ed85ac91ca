"""``unival plan RECIPE``: rows, updates, effective batch, memory and time, before anything is trained."""

from __future__ import annotations

import argparse

from unival.cli.train import resolve

PASSES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Any option of training may follow the recipe."""
    parser.add_argument("recipe", help="YAML recipe, for example configs/tiny/caption.yaml")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Print the plan."""
    from unival.train import plan

    print(plan(resolve(args.recipe, extra)))
    return 0
