"""``unival data sample OUT``: render the sample world."""

from __future__ import annotations

import argparse
import inspect
import time

from unival.core.files import check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one option per parameter of ``unival.datatools.world.render``; its defaults are the defaults."""
    from unival.datatools.world import render

    defaults = {name: p.default for name, p in inspect.signature(render).parameters.items()}
    parser.add_argument(
        "out", metavar="OUT", help="folder to write to: new, empty, or a sample world to replace"
    )
    for name, text in {
        "seed": "everything follows from it",
        "images": "number of pictures over all splits",
        "clips": "number of video clips over all splits",
        "sounds": "number of sounds over all splits",
        "image_size": "shorter side of a picture, in pixels",
        "video_size": "side of a clip, in pixels (even)",
        "variant": "base, new_objects (colour/shape pairs base lacks) or new_words (other wording)",
        "vocabulary_size": "text pieces of the vocabulary trained on the texts; 0 trains none",
        "num_codes": "image codes in the vocabulary",
        "num_bins": "location bins in the vocabulary",
        "questions": "questions about each training picture, 2 to 5; one less in the pretraining table",
    }.items():
        default = defaults[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            help=f"{text} (default: {default})",
        )


def run(args: argparse.Namespace) -> int:
    """Render and print where everything is."""
    from unival.datatools.world import render

    check_folder(args.out)
    options = {k: v for k, v in vars(args).items() if k in inspect.signature(render).parameters}
    start = time.monotonic()
    summary = render(args.out, progress=lambda message: print(f"{message} ...", flush=True), **options)
    for name, rows in summary["files"].items():
        print(f"  {name:<40} {rows:>6} rows")
    media = ", ".join(f"{count} {kind}" for kind, count in summary["media"].items())
    print(
        f"{summary['folder']}: {media}; {summary['bytes'] / 1e6:.1f} MB in {time.monotonic() - start:.0f} s"
    )
    print(f"What each file is: {summary['folder']}/README.md")
    return 0
