"""``unival data index``: build the sidecar indexes of tables ahead of a run."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tables."""
    parser.add_argument("tables", nargs="+", help=".tsv, .csv or .jsonl files")


def run(args: argparse.Namespace) -> int:
    """Build each index, or find it built, and say where it lies."""
    from unival.tables.index import open_index

    for path in args.tables:
        index = open_index(path, quoted=path.lower().endswith(".csv"))
        print(f"{path}: {len(index):,} lines, index in {index.sidecar or 'memory only'}")
    return 0
