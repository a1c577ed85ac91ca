"""``unival data features FOLDER``: what ``--keep-features`` kept there, and deleting it."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the folder."""
    parser.add_argument("folder", help="the folder of --keep-features")
    parser.add_argument("--delete", action="store_true", help="delete all features in it")


def run(args: argparse.Namespace) -> int:
    """List the features by network and transform; delete them if asked for."""
    from pathlib import Path

    from unival.errors import ConfigError
    from unival.media.features import delete, listed

    if not Path(args.folder).is_dir():
        raise ConfigError(f"'{args.folder}' is no folder; name the one of --keep-features")
    found = listed(args.folder)
    for each in found:
        shape = " x ".join(map(str, each.shape))
        print(f"{each.name}: {each.media:,} media, {shape} {each.dtype}, {each.size / 1e6:,.1f} MB")
    total = sum(each.size for each in found)
    if args.delete:
        delete(args.folder)
        print(f"deleted {total / 1e6:,.1f} MB")
    else:
        print(f"{total / 1e6:,.1f} MB in {args.folder}")
    return 0
