"""Table and plots of several sweeps of the same points together, for example one per seed."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Finished sweeps and where to draw them."""
    parser.add_argument("sweeps", nargs="+", help="sweep.json files, or their folders")
    parser.add_argument("--out", required=True, help="folder of plots and table.md")


def run(args: argparse.Namespace) -> int:
    """Write mean and range over the sweeps; print the table."""
    from unival.core.files import check_folder, write_text
    from unival.errors import DataError
    from unival.merge.plots import draw
    from unival.merge.record import read_sweep, table

    check_folder(args.out)
    contents = [read_sweep(path) for path in args.sweeps]
    runs = [content["records"] for content in contents]
    seen = [{(r["point"], r["evaluation"]) for r in run} for run in runs]
    for path, found in zip(args.sweeps, seen, strict=True):
        if found != seen[0]:
            lacking = sorted(seen[0] ^ found)[:3]
            raise DataError(
                f"has other points or evaluations than {args.sweeps[0]}, such as {lacking}", path=path
            )
    models = contents[0]["models"]
    files = draw(
        runs,
        args.out,
        (models[0], models[1]) if len(models) == 2 else ("", ""),
        [(a, b) for a, b in contents[0]["fronts"]],
    )
    text = table(runs)
    write_text(Path(args.out) / "table.md", text + "\n")
    print(text)
    print("plots: " + ", ".join(str(file) for file in files))
    return 0
