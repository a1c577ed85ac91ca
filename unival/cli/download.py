"""``unival download NAME``: fetch a released checkpoint; ``unival download --list`` shows what there is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unival.checkpoint.download import download
from unival.core.files import check_file
from unival.core.paths import expand
from unival.errors import CheckpointError, ConfigError
from unival.evaluate import reproduce


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Entry of the list, and what may replace its address and place."""
    parser.add_argument("name", nargs="?", help="name of a released checkpoint")
    parser.add_argument("--list", action="store_true", help="print all names, with task and expected score")
    parser.add_argument("--url", help="address to fetch from, when the list has none or another")
    parser.add_argument("--sha256", help="hash that the file must have, when the list has none")
    parser.add_argument("--out", help="file to write (default: where the list says, below UNIVAL_WEIGHTS)")
    parser.add_argument("--entries", help="another list than checkpoints/released.yaml")


def run(args: argparse.Namespace) -> int:
    """Download one file, going on where an earlier attempt stopped."""
    entries = reproduce.read_entries(args.entries)
    if args.list:
        print("\n".join(_line(entry) for entry in entries.values()))
        return 0
    if not args.name:
        raise ConfigError("name a checkpoint, or see them all with --list")
    entry = reproduce.find_entry(entries, args.name)
    url, expected = args.url or entry.url, args.sha256 or entry.sha256
    path = Path(args.out or expand(entry.checkpoint))
    if url is None:
        raise CheckpointError(
            f"no download address is known for '{args.name}': the list holds none. Give one with --url, or put "
            f"the file at {path}."
        )
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it to fetch it again")
    check_file(path)
    print(f"{url} -> {path}")
    done = download(url, path, expected, _show if sys.stderr.isatty() else None)
    print(
        f"{path.stat().st_size} bytes" + (f", continued at byte {done.resumed_at}" if done.resumed_at else "")
    )
    print(f"SHA-256 {done.sha256}" + (", as expected" if done.checked else ""))
    if not done.checked:
        print(f"the SHA-256 of '{args.name}' is not known yet: the file could not be checked against it")
    return 0


def _show(done: int, total: int | None) -> None:
    share = f" of {total / 1e6:.1f}" if total else ""
    print(f"\r{done / 1e6:.1f}{share} MB", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _line(entry: reproduce.Entry) -> str:
    scores = [f"{t.split} {t.metric} {t.expected:g}" for t in entry.results if t.expected is not None]
    known = "address known" if entry.url else "address not known"
    return f"{entry.name}: {entry.description}; {'; '.join(scores) or 'no published score'}; {known}"
