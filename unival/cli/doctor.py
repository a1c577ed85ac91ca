"""``unival doctor``: what is installed and missing; ``unival doctor CHECKPOINT``: whether a checkpoint is whole."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A checkpoint to look at in place of the installation."""
    parser.add_argument(
        "checkpoint", nargs="?", help="folder or .pt file to examine; without one: the installation"
    )
    parser.add_argument("--bpe-dir", help="vocabulary folder of a released file, which carries none")


def run(args: argparse.Namespace) -> int:
    """Print the findings; exit code 1 when the core is incomplete, or a checkpoint holds numbers that are none."""
    if args.checkpoint is not None:
        return _checkpoint(args.checkpoint, args.bpe_dir)
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


def _checkpoint(path: str, bpe_dir: str | None) -> int:
    """Load a checkpoint as every verb does, and look at every number in it."""
    import os

    import torch

    from unival.checkpoint.folder import WEIGHTS
    from unival.checkpoint.identify import size_of
    from unival.checkpoint.load import load_checkpoint
    from unival.core.checksum import verify

    loaded = load_checkpoint(path, bpe_dir=bpe_dir)
    files = [file for file in (path, os.path.join(path, WEIGHTS)) if os.path.isfile(file)]
    sums = [verify(file, anew=True) for file in files]
    state = loaded.model.state_dict()
    broken = [name for name, value in state.items() if not torch.isfinite(value.float()).all()]
    task = " ".join(str(loaded.task[name]) for name in ("modality", "name") if name in loaded.task)
    lines = {
        "checkpoint": path,
        "model": f"{loaded.family}, {size_of(loaded.model.config)}, {loaded.weights} weights",
        "tensors": f"{len(state)}, {sum(v.numel() for v in state.values()):,} numbers",
        "modalities": ", ".join(("text", *loaded.model.modalities)),
        "trained for": task or "it does not say",
        "vocabulary": f"{len(loaded.vocabulary):,} tokens, fits",
        "checksums": "right" if sums and all(sums) else "it has none: damage cannot be seen",
        "numbers": f"NaN or infinite in {len(broken)} tensors: {', '.join(broken[:5])}"
        if broken
        else "all finite",
    }
    for name, said in lines.items():
        mark = "BROKEN" if name == "numbers" and broken else "ok"
        print(f"{mark:>8}  {name:<16} {said}")
    return 1 if broken else 0
