"""``unival report RESULTS... --out FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path

from unival.core.files import check_folder
from unival.errors import ConfigError, DataError
from unival.report import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Result files, or folders that are searched for them."""
    parser.add_argument("results", nargs="+", help="result.json files, or folders that hold them")
    parser.add_argument("--out", required=True, help="folder of the report")
    parser.add_argument(
        "--log", action="append", default=[], metavar="NAME=FILE", help="further loss curve to draw"
    )
    parser.add_argument(
        "--figure",
        action="append",
        default=[],
        metavar="TITLE=FILE",
        help="further picture (PNG) for the page",
    )
    parser.add_argument("--title", default="UnIVAL results")


def run(args: argparse.Namespace) -> int:
    """Write the table, the loss curves and the page of pictures; print the table."""
    check_folder(args.out)
    files: list[Path] = []
    for name in args.results:
        path = Path(name)
        found = sorted(path.rglob("result.json")) if path.is_dir() else [path]
        if not found:
            raise DataError("no result.json in this folder; evaluate a checkpoint first", path=name)
        files += found
    logs, figures = _pairs("--log", args.log), _pairs("--figure", args.figure)
    report = write_report(files, args.out, logs=logs or None, title=args.title, figures=figures)
    print(report.table)
    print(f"pictures: {report.page}, {report.sheet}; curves: {report.curves}")
    return 0


def _pairs(option: str, entries: list[str]) -> dict[str, str]:
    for entry in entries:
        if "=" not in entry:
            raise ConfigError(f"{option} '{entry}' is not NAME=FILE")
    return dict(entry.split("=", 1) for entry in entries)
