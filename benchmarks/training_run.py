"""Examples a second of a real training run with real pictures, beside what the arithmetic alone would allow.

    python benchmarks/training_run.py [--arch unival_base] [--pixels 384] [--batch 64] [--updates 60]
                                      [--workers 2 8] [--images 2048] [--rows 2048] [--json FILE]
                                      [-- OPTIONS of unival train]

Writes JPEG files of 640 x 480 pixels with captions, trains on them through ``unival train`` (decoding, augmentation,
batching, the engine, logging) once per number of data workers, and prints examples a second between the first third
and the end of each run. With more rows than images every file is read several times an epoch: workers begin anew with
an epoch, and making files takes longer than reading them. ``benchmarks/training_step.py`` has the step alone.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from unival.vocabulary import Vocabulary

WORDS = ["a", "red", "blue", "green", "circle", "square", "bar", "above", "below", "on", "the", "of", "two"]


def data(folder: Path, count: int, rows: int) -> None:
    """Pictures with the detail of photographs, so that a file has about 60 kB, and a table of their captions."""
    rng = np.random.default_rng(0)
    lines = []
    captions = []
    for number in range(count):
        coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        picture = picture + rng.integers(-12, 12, picture.shape, dtype=np.int16)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=85)
    for number in range(rows):
        captions.append(" ".join(rng.choice(WORDS, 10)))
        lines.append(f"{number}\t{number % count}.jpg\t{captions[-1]}\n")
    (folder / "train.tsv").write_text("".join(["id\timage\tcaption\n", *lines]))
    Vocabulary.train(captions * 3, 400, 64, 1000).save(folder / "vocabulary")


def updates(command: list[str], verbose: bool) -> dict[int, float]:
    """Run a training; return when each update was reported, in seconds."""
    times: dict[int, float] = {}
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        # whoever ends this program means the training, which would keep its GPU
        def end(number: int, _: object, run: subprocess.Popen[str] = run) -> None:
            run.kill()
            sys.exit(128 + number)

        signal.signal(signal.SIGTERM, end)
        for line in run.stdout or ():
            said.append(line)
            if verbose:
                print(line, end="", file=sys.stderr, flush=True)
            if found := re.search(r"num_updates=(\d+)", line):
                times.setdefault(int(found[1]), time.perf_counter())
    if run.returncode:
        sys.exit("".join(said[-40:]))
    return times


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="unival_base")
    parser.add_argument("--pixels", type=int, default=384)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--images", type=int, default=2048, help="files")
    parser.add_argument("--rows", type=int, help="rows of the table (default: as many as images)")
    parser.add_argument("--json", metavar="FILE", help="append every run as a line of JSON")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--verbose", action="store_true", help="show what the runs print")
    args = parser.parse_args(words[:cut])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data(folder, args.images, args.rows or args.images)
        kilobytes = np.mean([path.stat().st_size for path in folder.glob("*.jpg")]) / 1e3
        print(
            f"{args.images} pictures of {kilobytes:.0f} kB, {args.arch}, {args.pixels} pixels, batch {args.batch}"
        )
        for workers in args.workers:
            options = {
                "task": "caption",
                "arch": args.arch,
                "bpe-dir": folder / "vocabulary",
                "image-dir": folder,
                "save-dir": folder / str(workers),
                "patch-image-size": args.pixels,
                "batch-size": args.batch,
                "criterion": "adjust_label_smoothed_cross_entropy",
                "label-smoothing": 0.1,
                "optimizer": "adam",
                "lr": 1e-5,
                "lr-scheduler": "polynomial_decay",
                "max-update": args.updates,
                "clip-norm": 1.0,
                "log-interval": 1,
                "log-format": "simple",
                "num-workers": workers,
                "seed": 1,
            }
            command = [sys.executable, "-m", "unival.train", folder / "train.tsv"]
            command += [f"--{name}={value}" for name, value in options.items()]
            command += ["--disable-validation", "--no-save", *words[cut + 1 :]]
            times = updates(list(map(str, command)), args.verbose)
            first, last = args.updates // 3, max(times)
            rate = (last - first) * args.batch / (times[last] - times[first])
            print(f"{workers} data workers: {rate:.0f} examples a second", flush=True)
            if args.json:
                kept = {"part": "run", "workers": workers, "batch": args.batch, "rate": rate}
                with Path(args.json).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()
