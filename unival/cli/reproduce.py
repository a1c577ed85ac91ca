"""``unival reproduce NAME [--split S] [options of unival evaluate]``."""

from __future__ import annotations

import argparse
from dataclasses import replace

PASSES_OPTIONS = (
    True  # whatever is not ours goes to ``unival evaluate``; the settings it changes are reported
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb itself; all others are those of ``unival evaluate``."""
    parser.add_argument("name", nargs="?", help="released checkpoint; without it the known ones are listed")
    parser.add_argument("--split", help="one of the entry's results (default: the first)")
    parser.add_argument("--files", action="store_true", help="list the files that are needed, and stop")
    parser.add_argument(
        "--fetch", action="store_true", help="fetch those of them that are published and not there"
    )
    parser.add_argument("--checkpoint", help="use this file instead of the one below UNIVAL_WEIGHTS")
    parser.add_argument(
        "--paper", action="store_true", help="also print all columns of the paper's table, in its unit"
    )
    parser.add_argument("--list", help="another list of entries than the catalogue")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Evaluate and print expected, obtained, tolerance and what differs; exit code 1 if not reproduced."""
    from unival.cli.evaluate import in_columns, parse
    from unival.core.paths import expand
    from unival.evaluate import paper, reproduce
    from unival.evaluate.runner import evaluate
    from unival.evaluate.scoring import CAPTION_METRICS

    entries = reproduce.read_entries(args.list)
    if args.name is None:
        for entry in entries.values():
            if entry.family != "UnIVAL" and not entry.results:
                continue
            splits = ", ".join(_published(target) for target in entry.results) or "no score of its own"
            print(f"{entry.name}: {entry.description}\n    {splits}")
        return 0
    entry = reproduce.find_entry(entries, args.name)
    target = entry.target(args.split)
    print(f"{entry.name}: {entry.description}")
    if args.fetch:
        from unival.cli.download import fetch_all
        from unival.evaluate.needs import PREFIX, needs_of

        fetch_all(needs_of(entries, f"{PREFIX}{entry.name}:{target.split}").groups)
    for path, what in reproduce.needed_files(entry, target, args.checkpoint):
        print(f"  {'there  ' if path.exists() else 'MISSING'} {path} ({what})")
    print(f"  hash of the released file: {entry.sha256 or 'not known yet, so it cannot be checked'}")
    for command in entry.make:
        print(f"  made by: {expand(command)}")
    if args.files:
        return 0
    reproduce.check_files(entry, target, args.checkpoint)
    words = [args.checkpoint or str(entry.path)]
    words += [expand(target.table)] if target.table else []
    request = parse([*words, "--recipe", str(entry.recipe_path()), *extra])
    table: paper.PaperTable | None = None
    reasons: list[str] = []
    if args.paper:
        request, table, reasons = in_columns(request, entry.paper_table)
    elif target.metric in paper.PROGRAMS and not request.metrics:  # computed on request only
        request = replace(request, metrics=(*CAPTION_METRICS, target.metric))
    result = evaluate(request)
    if result is None:
        return 0
    found = reproduce.judge(entry, target, result)
    unit = f" {target.metric or result['main_metric']}" + (
        f" x {target.scale:g}" if target.scale != 1 else ""
    )
    print(f"\n{entry.name}, {target.split}, {found.n} items,{unit}")
    print(f"  expected  {_number(target.expected)}   tolerance {_number(target.tolerance)}   {target.source}")
    print(f"  obtained  {_number(found.obtained)}   {found.verdict}")
    if table is not None:
        rows = [
            ("published", reproduce.published(entry, target, table)),
            ("obtained", table.values(result["metrics"])),
        ]
        print("\n".join([*table.lines(rows), *(f"  {reason}" for reason in reasons)]))
    print("  settings that differ:" if found.differences else "  settings that differ: none")
    for line in found.differences:
        print(f"    {line}")
    for note in entry.notes:
        print(f"  note: {note}")
    print(f"  result: {result['folder']}/result.json")
    return 1 if found.verdict == "not reproduced" else 0


def _published(target: object) -> str:
    split, expected = getattr(target, "split", ""), getattr(target, "expected", None)
    return f"{split} {expected}" if expected is not None else f"{split} (no published number)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
