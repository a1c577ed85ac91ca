"""``unival data split``: training, validation and test parts with no medium in two of them."""

from __future__ import annotations

import argparse

from unival.cli.data_arguments import TABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the table and the shares of its parts."""
    parser.add_argument("table", help=TABLE)
    parser.add_argument(
        "--by", required=True, metavar="COLUMN", help="rows with the same value stay together"
    )
    parser.add_argument("--val", type=float, default=0.1, help="share of the values for validation")
    parser.add_argument("--test", type=float, default=0.1, help="share of the values for the test")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", metavar="FOLDER", help="default: beside the table")


def run(args: argparse.Namespace) -> int:
    """Write the parts and print their sizes."""
    import os

    from unival.core.files import check_folder
    from unival.datatools.own.split import split_table
    from unival.tables import open_table

    table = open_table(args.table, (args.by,))
    folder = args.out or os.path.dirname(table.path) or "."
    check_folder(folder)
    shares = {"val": args.val, "test": args.test}
    for path, rows in split_table(table, folder, args.by, shares, args.seed).values():
        print(f"{path}: {rows:,} rows")
    return 0
