"""``unival data show``: a page of decoded rows, with boxes drawn."""

from __future__ import annotations

import argparse
import os

from unival.cli.data_arguments import add_table, spec_of, table_of
from unival.core.files import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the table, how many rows and where the page goes."""
    add_table(parser)
    parser.add_argument("--rows", type=int, default=24, metavar="N", help="rows, evenly spaced (default: 24)")
    parser.add_argument(
        "--out", default="rows.html", metavar="FILE", help=".html or .png (default: rows.html)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from unival.core.sampling import evenly
    from unival.evaluate.items import gather, shown
    from unival.evaluate.pictures import picture
    from unival.report.page import write_cards
    from unival.specs import all_options

    check_file(args.out)
    spec = spec_of(args)
    table = table_of(args, spec)
    items = evenly(gather(spec, table, all_options()()), args.rows)
    loader = table.loader()
    entries = [shown(spec, table, item, {"prediction": None, "score": None}) for item in items]
    cards = [(picture(entry, spec.modality, loader), entry) for entry in entries]
    write_cards(cards, args.out, f"{os.path.basename(table.path)}: {spec.name}", spec.modality)
    print(f"{args.out}: {len(cards)} of {len(table):,} rows")
    return 0
