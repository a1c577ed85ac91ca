"""``unival download NAME...``: fetch published weights and tables; ``unival download --list`` shows what there is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unival.checkpoint.catalogue import Entry, PublishedFile, alternatives, find_entry, read_entries
from unival.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unival.evaluate.needs import Needs

Groups = dict[Path, list[tuple[Entry, PublishedFile]]]  # by what is wanted: one of the files gives it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Names of the catalogue, runs whose files to fetch, and what may replace an address and a place."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="what to fetch, with what it needs beside it"
    )
    parser.add_argument(
        "--list", action="store_true", help="print all names, with task, size and published score"
    )
    parser.add_argument(
        "--for",
        dest="runs",
        action="append",
        default=[],
        metavar="RUN",
        help="fetch what a run needs: a recipe, or reproduce:NAME (reproduce:NAME:SPLIT)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print files, addresses, bytes and places; fetch nothing"
    )
    parser.add_argument("--url", help="address to fetch the one file from, instead of the catalogue's")
    parser.add_argument("--sha256", help="hash that the one file must have")
    parser.add_argument("--out", help="file to write the one file to")
    parser.add_argument("--entries", help="another list than the catalogue")


def run(args: argparse.Namespace) -> int:
    """Fetch what is named and not there; says what was not found."""
    entries = read_entries(args.entries)
    if args.list:
        print("\n".join(_line(entry) for entry in entries.values()))
        return 0
    if not args.names and not args.runs:
        raise ConfigError("name what to fetch (see it all with --list), or a run with --for")
    if args.url or args.sha256 or args.out:
        return _one(find_entry(entries, args.names[0]) if len(args.names) == 1 else None, args)
    wanted = named(entries, args.names)
    from unival.evaluate.needs import needs_of

    needs = [needs_of(entries, what) for what in args.runs]
    for need in needs:
        wanted |= {path: group for path, group in need.groups.items() if path not in wanted}
    if args.dry_run:
        _show(wanted)
    _say_unpublished(needs)
    return 0 if args.dry_run else fetch_all(wanted)


def named(entries: Mapping[str, Entry], names: Iterable[str]) -> Groups:
    """Files of the named entries and of what they need beside them, alternatives together."""
    found: dict[str, Entry] = {}
    for name in names:
        entry = find_entry(entries, name)
        if not entry.files:
            how = f"; make it with: {'; '.join(entry.make)}" if entry.make else ""
            raise CheckpointError(f"'{name}' is not published anywhere{how}")
        found |= {name: entry, **{other: find_entry(entries, other) for other in entry.needs}}
    groups: Groups = {}
    for entry in found.values():
        for same in alternatives(entry.files):
            groups.setdefault(same[0].path, []).extend((entry, file) for file in same)
    return groups


def fetch_all(wanted: Groups) -> int:
    """Fetch what is not there, alternatives in turn. Raises CheckpointError naming what failed."""
    failed = []
    for place, group in wanted.items():
        same = [file for _, file in group]
        if place.exists():
            print(f"{place}: there already{_state(place, same)}")
            continue
        there = next((file for file in same if file.present()), None)
        if there is not None:
            whole = place in (file.path for file in same)  # the archive itself was asked for
            print(
                f"{there.folder}: there already"
                if whole
                else f"{place}: not in the archive that was unpacked"
            )
            continue
        errors: list[str] = []
        for file in same:
            try:
                _fetch(file)
                break
            except CheckpointError as error:
                errors.append(str(error))
        else:
            failed.append("\n".join(errors))
    if failed:
        raise CheckpointError("not everything could be fetched:\n" + "\n".join(failed))
    return 0


def _fetch(file: PublishedFile, place: Path | None = None) -> None:
    from unival.checkpoint.download import fetch

    target = place or file.path
    print(f"{file.urls[0] if file.urls else 'no address'} -> {target}", flush=True)
    with _bar(target.name) as progress:
        done = fetch(file, progress, place=place)
    size = "" if done.unpacked else f"{target.stat().st_size} bytes, "
    resumed = f", continued at byte {done.resumed_at}" if done.resumed_at else ""
    known = (
        ", as published" if done.checked else ", not known before: the file could not be checked against it"
    )
    print(f"  {size}SHA-256 {done.sha256}{known}{resumed}")
    if done.url != file.urls[0]:
        print(f"  from {done.url}")
    if file.folder is not None:
        print(f"  unpacked {len(done.unpacked)} files into {file.folder}")
        for path in file.results:
            if not path.exists():
                print(f"  not in the archive: {path}")


def _one(entry: Entry | None, args: argparse.Namespace) -> int:
    """Fetch the first file of an entry with what the command line says of it."""
    if entry is None or not entry.files or args.runs or args.dry_run:
        raise ConfigError("--url, --sha256 and --out are for one name alone")
    file = entry.files[0]
    place = Path(args.out) if args.out else None
    target = place or file.path
    if target.exists():
        raise ConfigError(f"{target} is there already; remove it to fetch it again")
    urls = (args.url,) if args.url else file.urls
    size = file.bytes if args.sha256 is None else None  # of another file
    _fetch(replace(file, urls=urls, sha256=args.sha256 or file.sha256, bytes=size), place)
    return 0


def _state(place: Path, same: list[PublishedFile]) -> str:
    """Whether a file that is there is the published one, where that can be told."""
    from unival.checkpoint.download import check

    file = next((file for file in same if file.folder is None and file.path == place), None)
    if file is None or not place.is_file():
        return ""
    wrong = check(place, file)
    if wrong:
        raise CheckpointError(f"{place} is {wrong}; remove it to fetch it again")
    return ", as published" if file.sha256 or file.md5 else ""


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, desc=name, leave=False) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.n = done
            bar.refresh() if total == done else bar.update(0)

        yield show


def _show(wanted: Groups) -> None:
    """Print every file with its place, bytes, hash and addresses."""
    name, pairs = None, [pair for group in wanted.values() for pair in group]
    for number, (entry, file) in enumerate(pairs):
        if (entry, file) in pairs[:number]:
            continue
        if entry.name != name:
            name = entry.name
            print(f"{entry.name}: {entry.description}" + (f" [{entry.license}]" if entry.license else ""))
        instead = all(group[0] != (entry, file) for group in wanted.values())
        there = "there   " if file.present() else "if all else fails " if instead else "missing "
        target = f"{file.path}" + (f" -> {file.folder}" if file.folder is not None else "")
        size = f"{file.bytes:,} bytes" if file.bytes is not None else "bytes not stated"
        kept = (
            f"SHA-256 {file.sha256}{'...' if len(file.sha256) < 64 else ''}"
            if file.sha256
            else "hash not stated"
        )
        print(f"  {there}{target}\n    {size}, {kept}")
        for url in file.urls:
            print(f"    {url}")
        for url in file.pages:
            print(f"    by hand: {url}")
        if file.gives:
            print(f"    gives {', '.join(file.gives)}")
        for copy, member in file.copies.items():
            print(f"    {copy}: shuffled copies of {member}, to be made")
        if file.probable:
            print(f"    probable, not stated: {file.probable}")


def _say_unpublished(needs: list[Needs]) -> None:
    for need in needs:
        for path, what in need.unpublished:
            label = "media" if what.startswith("media") else "there" if path.exists() else "not published"
            print(f"{label}: {path} ({what.removeprefix('media: ')})")


def _line(entry: Entry) -> str:
    scores = [f"{t.split} {t.metric} {t.expected:g}" for t in entry.results if t.expected is not None]
    known = [file.bytes for file in entry.files if file.bytes is not None]
    size = (
        f"{sum(known) / 1e6:,.1f} MB" + (" and more" if len(known) < len(entry.files) else "")
        if known
        else ""
    )
    there = "here" if entry.files and entry.present() else ""
    by_hand = "by hand" if entry.files and not any(file.urls for file in entry.files) else ""
    parts = [entry.task, entry.size, size, "; ".join(scores), by_hand, there]
    return f"{entry.name}: {entry.description}" + "".join(f"; {part}" for part in parts if part)
