"""``unival data validate``: check every row and decode a sample; exit code 1 when something is wrong."""

from __future__ import annotations

import argparse

from unival.cli.data_arguments import add_table, spec_of, table_of, vocabulary_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the table and how closely it is looked at."""
    add_table(parser)
    parser.add_argument("--decode", type=int, default=32, metavar="N", help="rows whose media are decoded")
    parser.add_argument("--problems", type=int, default=20, metavar="N", help="problems that are printed")
    parser.add_argument("--bpe-dir", metavar="FOLDER", help="vocabulary, for token counts")


def run(args: argparse.Namespace) -> int:
    """Print what the table holds and what is wrong with it."""
    from unival.datatools.own.audit import audit

    spec = spec_of(args)
    table = table_of(args, spec)
    found = audit(spec, table, vocabulary_of(args.bpe_dir), decode=args.decode)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.media.most_common(6))
    print(f"{table.path}: {found.rows:,} rows of {spec.name} ({spec.modality}), {found.usable:,} usable")
    print(f"  media: {kinds or 'none found'}; {found.decoded:,} decoded in full")
    if found.targets:
        common = ", ".join(f"'{text}' {count:,}" for text, count in found.targets.most_common(5))
        print(f"  targets: {len(found.targets):,} different; most frequent: {common}")
    if found.without_target:
        print(
            f"  without a target: {found.without_target:,} (can be predicted, neither trained on nor scored)"
        )
    if found.repeated_ids:
        print(f"  ids that repeat: {found.repeated_ids:,}")
    if args.bpe_dir:
        print(f"  longest source {found.longest_source} tokens, longest target {found.longest_target}")
    for problem in found.problems[: args.problems]:
        print(f"  {problem.kind}: {problem.place}, {problem.message}")
    rest = len(found.problems) - args.problems
    if rest > 0:
        print(f"  and {rest:,} more (--problems {len(found.problems)} prints all)")
    return 1 if found.problems else 0
