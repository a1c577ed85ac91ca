"""``unival data index``: build the sidecar indexes of tables ahead of a run."""

from __future__ import annotations

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tables."""
    parser.add_argument("tables", nargs="+", help=".tsv, .csv, .jsonl or .tar files")


def run(args: argparse.Namespace) -> int:
    """Build each index, or find it built, and say where it lies."""
    from unival.media.columnar import ENDINGS as COLUMNAR
    from unival.tables.index import open_index
    from unival.tables.several import files_of
    from unival.tables.webdataset import open_samples

    for path in (file for name in args.tables for file in files_of(name)):
        ending = os.path.splitext(path)[1].lower()
        if ending in COLUMNAR:
            print(f"{path}: needs no index, it holds its own")
            continue
        index = open_samples(path) if ending == ".tar" else open_index(path, quoted=ending == ".csv")
        what = "samples" if ending == ".tar" else "lines"
        print(f"{path}: {len(index):,} {what}, index in {index.sidecar or 'memory only'}")
    return 0
