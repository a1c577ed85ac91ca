"""Photographs, clips and sounds a CPU second, from files to tensors, decoded every time or kept on disk (--keep-media).

    python benchmarks/kept_media.py [--seconds 2] [--files 8]

Files are made as in loading.py, photographs of 1600 x 1200 beside them. Both ways take turns, file by file, in one
thread, after a first pass that fills the folder; its reads come from the system's file cache.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from image_resize import photographs
from loading import OPTIONS, clips, rates, sounds

from unival.core.seeding import rng_for
from unival.media.kept import KeptMedia, used
from unival.media.loader import MediaLoader
from unival.specs.inputs import load_media
from unival.tables.row import Row


def measured(
    modality: str, files: list[Path], kept: Path, training: bool, least: float
) -> tuple[list[float], float]:
    """Files a CPU second, decoded and kept, and the mean bytes of a kept medium."""
    plain, keeping, number = MediaLoader(), MediaLoader(), itertools.count()
    keeping.kept = KeptMedia(kept, {}, 10**10)

    def load(path: Path, loader: MediaLoader) -> None:
        rng = rng_for(1, 1, next(number), "augment") if training else None
        load_media(Row({modality: str(path)}, "table", 1), modality, loader, OPTIONS, rng, training)

    for path in files:
        load(path, keeping)
    ways = {"decoded": lambda path: load(path, plain), "kept": lambda path: load(path, keeping)}
    return rates(ways, files, least), used(kept) / len(files)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of the processor, at least, for each way")
    parser.add_argument("--files", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    made: dict[str, tuple[str, Callable[[Path], object]]] = {
        "photographs, 640 x 480": ("image", lambda folder: photographs(folder, 640, 480, args.files)),
        "photographs, 1600 x 1200": ("image", lambda folder: photographs(folder, 1600, 1200, args.files)),
        "clips, 8 of 75 frames": ("video", lambda folder: clips(folder, args.files)),
        "sounds of 5 s": ("audio", lambda folder: sounds(folder, args.files)),
    }
    print("| files | use | decoded | kept | times | kB each |\n|---|---|---|---|---|---|")
    for (name, (modality, make)), training in itertools.product(made.items(), (False, True)):
        if modality == "video" and training:
            continue  # its frames are drawn anew every time, so they are not kept
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as kept:
            make(Path(folder))
            files = sorted(Path(folder).iterdir())
            (plain, found), size = measured(modality, files, Path(kept), training, args.seconds)
        use = "training, augmented" if training else "evaluation"
        cells = [name, use, f"{plain:.0f}", f"{found:.0f}", f"{found / plain:.1f}", f"{size / 1e3:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
