"""``unival data split``: training, validation and test parts with no medium in two of them, or boxes by their size."""

from __future__ import annotations

import argparse

from unival.cli.data_arguments import TABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the table and the shares of its parts."""
    parser.add_argument("table", help=TABLE)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--by", metavar="COLUMN", help="rows with the same value stay together")
    how.add_argument(
        "--sizes",
        metavar="SMALL,LARGE",
        help="rows of visual grounding by the area of their box: small below, medium, large above, pixels squared",
    )
    parser.add_argument("--val", type=float, default=0.1, help="share of the values for validation")
    parser.add_argument("--test", type=float, default=0.1, help="share of the values for the test")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", metavar="FOLDER", help="default: beside the table")


def run(args: argparse.Namespace) -> int:
    """Write the parts and print their sizes."""
    import os

    from unival.core.files import check_folder
    from unival.datatools.own.split import split_sizes, split_table
    from unival.specs import get_spec
    from unival.tables import open_table

    limits = _limits(args.sizes) if args.sizes else None
    spec = get_spec("grounding")
    table = (
        open_table(args.table, (args.by,))
        if limits is None
        else open_table(args.table, spec.fields, spec.layout_name)
    )
    folder = args.out or os.path.dirname(table.path) or "."
    check_folder(folder)
    if limits is None:
        written = split_table(table, folder, args.by, {"val": args.val, "test": args.test}, args.seed)
    else:
        written = split_sizes(table, folder, limits)
    for path, rows in written.values():
        print(f"{path}: {rows:,} rows")
    return 0


def _limits(text: str) -> tuple[float, float]:
    from unival.errors import ConfigError

    try:
        small, large = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--sizes {text}: expected two areas in pixels squared, such as 30000,100000"
        ) from None
    return small, large
