"""``unival doctor``: versions, backends, what is missing and how to install it."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(args: argparse.Namespace) -> int:
    """Print the findings; exit code 1 when the core is incomplete."""
    from unival.cli.installation import examine

    findings = list(examine())
    for found in findings:
        mark = "ok" if found.good else "MISSING" if found.needed else "-"
        print(f"{mark:>8}  {found.name:<16} {found.said}")
    remedies = dict.fromkeys(found.remedy for found in findings if not found.good and found.remedy)
    if remedies:
        print("\nto get what is missing:")
        for remedy in remedies:
            print(f"  {remedy}")
    return 1 if any(found.needed and not found.good for found in findings) else 0
