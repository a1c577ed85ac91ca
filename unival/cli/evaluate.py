"""``unival evaluate CHECKPOINT [TABLE] [--task NAME | --recipe FILE]``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.core import options as cli_options
from unival.core.command import Parser

if TYPE_CHECKING:
    from unival.evaluate.paper import PaperTable
    from unival.evaluate.request import Request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of an evaluation, then those of the task descriptions (sizes, prompts, answers)."""
    parser.add_argument("checkpoint", help="folder with config.json, or a .pt file of a training run")
    parser.add_argument(
        "table", nargs="?", help="table or table description (default: data.valid of the recipe)"
    )
    parser.add_argument(
        "--paper", nargs="?", const="", metavar="TABLE",
        help="also print the columns of the paper's table, in its unit (default: the recipe's table)",
    )  # fmt: skip
    add_options(parser)


def add_options(parser: argparse.ArgumentParser, skip: Iterable[str] = ()) -> None:
    """Add the fields of a request as options, but for some."""
    from unival.evaluate.request import Request
    from unival.specs import all_options

    cli_options.add_arguments(parser, Request, skip=skip)
    cli_options.add_arguments(parser.add_argument_group("task options"), all_options(), skip=skip)


def request_of(args: argparse.Namespace, **changes: Any) -> Request:
    """Return the request that the arguments make; ``changes`` replace some of its fields."""
    from unival.evaluate.request import Request
    from unival.specs import all_options

    options = cli_options.given(args, all_options())
    return Request(**{**cli_options.given(args, Request), "options": options, **changes})


def parse(words: Sequence[str]) -> Request:
    """Read arguments of the verb, for other verbs that take them."""
    parser = Parser(prog="unival evaluate", allow_abbrev=False)
    add_arguments(parser)
    return request_of(parser.parse_args(list(words)))


def in_columns(request: Request, name: str | None = None) -> tuple[Request, PaperTable, list[str]]:
    """Ask for the metrics of a table of the paper (default: the recipe's), as far as they can be computed.

    Returns the request, the table, and why columns will be empty. Raises ConfigError for an unknown table.
    """
    from unival.evaluate import paper
    from unival.evaluate.recipe import read_recipe

    if name is None and request.recipe:
        name = read_recipe(request.recipe).extra.get("paper_table")
    table = paper.named(name)
    if request.metrics:
        return request, table, []
    metrics, reasons = paper.computable(table, request.java_settings)
    return replace(request, metrics=metrics), table, reasons


def _said(result: Mapping[str, Any]) -> list[str]:
    """Return lines on the predictions as a whole: how many differ, and whether anything was learnt."""
    from unival.evaluate.verdict import GUIDE, percent, remarks, shown

    found = result.get("predictions")
    if not found:
        return []
    among = f", {found['targets']} different targets" if "targets" in found else ""
    lines = [
        f"{found['different']} different predictions{among}; the most frequent, {percent(found['share'])}: "
        f"{shown(found['most_frequent'])}"
    ]
    if result.get("baselines"):
        name = result["main_metric"]
        values = [
            f"{what} {scores[name]:.4f}" for what, scores in result["baselines"].items() if name in scores
        ]
        lines.append(f"baselines, {name}: {', '.join(values)}")
    doubts = remarks(result)
    return [*lines, *(f"warning: {doubt}" for doubt in doubts), *([GUIDE] if doubts else [])]


def run(args: argparse.Namespace) -> int:
    """Predict, merge, score; prints the metrics and the result's path."""
    from unival.evaluate import paper
    from unival.evaluate.runner import evaluate

    request = request_of(args)
    table: PaperTable | None = None
    reasons: list[str] = []
    if args.paper is not None:
        request, table, reasons = in_columns(request, args.paper or None)
    result = evaluate(request)
    if result is None:
        return 0
    for name, value in result["metrics"].items():
        low, high = result.get("intervals", {}).get(name, (None, None))
        beside = result.get("baseline", {}).get(name)
        line = f"{name:>12} {value:10.4f}"
        line += f"   95 % [{low:.4f}, {high:.4f}]" if low is not None else ""
        print(line + (f"   baseline {beside:.4f}" if beside is not None else ""))
    if table is not None and result["metrics"]:
        print("\n".join(paper.shown(table, result, reasons)))
    for line in _said(result):
        print(line)
    if not result["metrics"]:
        print("the table carries no targets: predictions only")
    for warning in filter(None, [result.get("scoring", {}).get("warning")]):
        print(f"warning: {warning}")
    print(
        f"n = {result['n']}, coverage {result['coverage']:.1%}; "
        f"result: {Path(result['folder']) / 'result.json'}"
    )
    if "results" in result:
        print(f"{result['results']['n']:,} predictions for a server: {result['results']['file']}")
    return 0
