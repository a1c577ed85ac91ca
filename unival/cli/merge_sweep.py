"""Score merged models over a grid of settings, or search for the best coefficients."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A sweep recipe."""
    parser.add_argument("recipe", help="sweep recipe (YAML), for example configs/tiny/merge_sweep.yaml")
    parser.add_argument("--out", help="folder of the result (default: the recipe's)")
    parser.add_argument(
        "--search",
        action="store_true",
        help="find the best coefficients on the validation tables; the test tables are scored there only",
    )


def run(args: argparse.Namespace) -> int:
    """Score what is not scored yet, write CSV, JSON and plots, print the table."""
    from dataclasses import replace

    from unival.core.claim import claimed
    from unival.errors import ConfigError
    from unival.merge.recipe import read_document
    from unival.merge.record import outcome, sweep, table
    from unival.merge.sweep import SweepRecipe

    recipe = read_document(args.recipe, SweepRecipe)
    if args.out:
        recipe = replace(recipe, out=args.out)
    if args.search and recipe.search is None:
        raise ConfigError(f"{args.recipe}: --search needs a section 'search' (validation and test tables)")
    with claimed(recipe.out):
        content = sweep(recipe, args.search)
    print(outcome(content) if args.search else table([content["records"]]))
    print(f"in {recipe.out}")
    return 0
