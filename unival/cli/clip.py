"""``unival data clip SOURCE --out FILE``: train a small CLIP on one's own pictures and captions."""

from __future__ import annotations

import argparse
from typing import Any

from unival.core import options as cli_options
from unival.core.device import device_named
from unival.core.files import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare pairs, sizes of the network and settings of training."""
    from unival.imagegen.train_clip import ClipSettings

    add = parser.add_argument
    add("source", help="folder of pictures, or a table (description) with columns image and caption")
    add("--valid", metavar="SOURCE", help="pairs held out, to report how well they are matched")
    add(
        "--out", required=True, metavar="FILE", help="weights to write, with a .json of the sizes beside them"
    )
    add("--image-dir", help="folder or .tar that relative media paths start from")
    add("--device", help="cpu, cuda, cuda:1 (default: a GPU when there is one)")
    cli_options.add_arguments(parser.add_argument_group("network and training"), ClipSettings)


def run(args: argparse.Namespace) -> int:
    """Train, write, and print how well held-out pairs are matched."""
    import time

    from unival.imagegen.train_clip import ClipSettings, judge, train_clip
    from unival.metrics.images import ClipScorer

    check_file(args.out)
    settings = cli_options.from_namespace(args, ClipSettings)
    device = device_named(args.device)
    pictures, captions = _pairs(args.source, args.image_dir)
    held = _pairs(args.valid, args.image_dir) if args.valid else (pictures, captions)
    start = time.monotonic()

    def log(update: int, loss: float) -> None:
        print(f"update {update}: loss {loss:.4f}, {time.monotonic() - start:.0f} s", flush=True)

    config = train_clip(pictures, captions, args.out, settings, device, log)
    found = judge(ClipScorer(args.out, str(config), device), *held)
    print(
        f"{args.out} ({config.name}): {len(held[0])} {'held-out' if args.valid else 'training'} pairs, similarity "
        f"{found['own']:.3f} to the own caption, {found['other']:.3f} to another; the own one is nearest for "
        f"{found['r_precision']:.1%} (chance {1 / len(held[0]):.1%})"
    )
    return 0


def _pairs(source: str, image_dir: str | None) -> tuple[list[Any], list[str]]:
    """Pictures, and the first caption of each."""
    from unival.datatools.codes import Pictures

    pictures = Pictures(source, image_dir=image_dir)
    rows = list(pictures)
    return [pictures.media.image(row.reference) for row in rows], [row.captions[0] for row in rows]
