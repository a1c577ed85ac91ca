"""``unival compare A B``: paired tests of two evaluations."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two results, and how to test."""
    parser.add_argument("a", help="result.json of 'unival evaluate', or its folder")
    parser.add_argument("b", help="the other one; differences are B minus A")
    parser.add_argument("--resamples", type=int, default=10000, help="draws of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow-partial", action="store_true", help="compare the items that both have")
    parser.add_argument("--out", help="write the comparison as JSON")


def run(args: argparse.Namespace) -> int:
    """Print a table of the metrics; exit code 0 whatever the outcome."""
    from unival.core.files import check_file, write_text
    from unival.errors import ConfigError
    from unival.evaluate.compare import compare, read_scores

    if args.out:
        check_file(args.out)
    if args.resamples < 100:
        raise ConfigError(f"--resamples {args.resamples}: at least 100 are needed")
    found = compare(read_scores(args.a), read_scores(args.b), args.resamples, args.seed, args.allow_partial)
    print(f"{found[0].n} items; A = {args.a}, B = {args.b}")
    print(f"{'metric':>12} {'A':>9} {'B':>9} {'B - A':>9}   {'95 % interval':<22} {'p':>8}  test")
    for c in found:
        span = f"[{c.low:+.4f}, {c.high:+.4f}]"
        test = c.test if c.a_only is None else f"{c.test}: right in A only {c.a_only}, in B only {c.b_only}"
        print(f"{c.metric:>12} {c.a:9.4f} {c.b:9.4f} {c.difference:+9.4f}   {span:<22} {c.p:8.4f}  {test}")
    if args.out:
        content = {"a": str(args.a), "b": str(args.b), "resamples": args.resamples, "seed": args.seed}
        lines = [{**asdict(c), "difference": c.difference} for c in found]
        write_text(args.out, json.dumps({**content, "metrics": lines}, indent=1) + "\n")
    return 0
