"""``unival merge RECIPE``, and ``unival merge fisher | sweep | chain | plot``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib import import_module

from unival.core.command import Parser

ACTIONS = ("fisher", "sweep", "chain", "plot")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe, or an action; what follows is read by whichever it is."""
    listed = ",".join(ACTIONS)
    parser.usage = f"unival merge RECIPE.yaml [--out FOLDER]\n       unival merge {{{listed}}} --help"
    parser.add_argument("recipe", help=f"merge recipe (YAML), or one of {', '.join(ACTIONS)}")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Merge, or hand over to the action named in place of a recipe."""
    if args.recipe in ACTIONS:
        module = import_module(f"unival.cli.merge_{args.recipe}")
        parser = Parser(prog=f"unival merge {args.recipe}", description=module.__doc__, allow_abbrev=False)
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(args.rest)))
    from unival.merge.recipe import MergeRecipe, read_document
    from unival.merge.run import merge

    parser = Parser(prog="unival merge RECIPE.yaml", allow_abbrev=False)
    parser.add_argument("--out", help="folder of the result (default: the recipe's)")
    out = parser.parse_args(args.rest).out
    recipe = read_document(args.recipe, MergeRecipe)
    merge(replace(recipe, out=out) if out else recipe, say=print)
    return 0
