"""Pictures a CPU second from JPEG files to tensors, by Pillow's resize and by torchvision's (``resize_backend``).

    python benchmarks/image_resize.py [--seconds 3] [--pictures 16] [--set 640x480:384 ...]

Files have the detail of photographs; each is read, decoded, resized and normalised by the code of training, without
augmentation, in one thread. The two ways take turns, picture by picture. Levels are those of 0..255.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unival.media.loader import MediaLoader
from unival.specs import SpecOptions
from unival.specs.inputs import load_media
from unival.specs.options import RESIZE_BACKENDS
from unival.tables.row import Row

SETS = ("640x480:384", "640x480:224", "500x375:224", "1600x1200:384", "4000x3000:384")


def photographs(folder: Path, width: int, height: int, count: int) -> float:
    """Write JPEG files ``0.jpg`` and on; return their kilobytes in the mean."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        smooth = np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16
        )
        grain = rng.integers(-12, 12, smooth.shape, dtype=np.int16)
        picture = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number}.jpg", quality=85)
    return float(np.mean([path.stat().st_size for path in folder.glob("*.jpg")]) / 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of the processor, for each way and set")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument(
        "--set", nargs="+", default=SETS, help="WIDTHxHEIGHT:SIDE of files and of the network's input"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.set:
        shape, _, side = name.partition(":")
        width, height = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            kilobytes = photographs(Path(folder), width, height, args.pictures)
            loader, options = MediaLoader(root=folder), SpecOptions(patch_image_size=int(side))
            seconds = dict.fromkeys(RESIZE_BACKENDS, 0.0)
            done, largest, mean = 0, 0.0, []
            while done < args.pictures or min(seconds.values()) < args.seconds:
                row = Row({"image": f"{done % args.pictures}.jpg"}, "table", 1)
                found = []
                for backend in RESIZE_BACKENDS:
                    how = replace(options, resize_backend=backend)
                    begun = time.process_time()
                    found.append(load_media(row, "image", loader, how, None, False)["media"])
                    seconds[backend] += time.process_time() - begun
                if done < args.pictures:
                    apart = (found[0] - found[1]).abs() * 127.5
                    largest = max(largest, float(apart.max()))
                    mean.append(float(apart.mean()))
                done += 1
        rates = [done / seconds[backend] for backend in RESIZE_BACKENDS]
        print(
            f"{name} ({kilobytes:.0f} kB): pillow {rates[0]:.1f} a CPU second, torchvision {rates[1]:.1f} "
            f"({rates[1] / rates[0]:.2f} times); they differ by {largest:.0f} levels at most, {np.mean(mean):.4f} in "
            "the mean",
            flush=True,
        )


if __name__ == "__main__":
    main()
