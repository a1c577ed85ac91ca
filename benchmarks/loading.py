"""Photographs, clips and sounds a CPU second, from files to tensors, in one thread.

    python benchmarks/loading.py [--only image video audio] [--folder PATH] [--seconds 3] [--files 8]

Three ways take turns, file by file: the bare decoder (Pillow to RGB; PyAV, every frame of the stream, none converted;
soundfile to float32, the file's own rate), the code of evaluation, and that of training with augmentation. Without
``--folder`` files are made: photographs as in image_resize.py (500 x 375, 640 x 480, 800 x 600), H.264 clips of 75
frames (360 x 288, as GRID's) and Ogg Vorbis sounds of 5 s at 44.1 kHz (as ESC's). With it, the files below PATH that
have a modality's endings. Pictures become 384 pixels, clips 8 frames of 224, sounds 480,000 samples at 48 kHz.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from image_resize import photographs
from PIL import Image

from unival.core.seeding import rng_for
from unival.media.endings import ENDINGS
from unival.media.loader import MediaLoader
from unival.specs import SpecOptions
from unival.specs.inputs import load_media
from unival.tables.row import Row

FRAMES, WIDTH, HEIGHT, RATE, SECONDS = 75, 360, 288, 44100, 5
SIZES = ((500, 375), (640, 480), (800, 600))
OPTIONS = SpecOptions(patch_image_size=384, num_frames=8, use_dataaug=True)


def pictures(folder: Path, count: int) -> None:
    """Write as many photographs of each of the usual sizes."""
    for width, height in SIZES:
        of_size = folder / f"{width}x{height}"
        of_size.mkdir()
        photographs(of_size, width, height, max(1, count // len(SIZES)))


def clips(folder: Path, count: int) -> None:
    """Write H.264 files of a grainy picture that moves by two pixels a frame."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    size = (WIDTH + 2 * FRAMES, HEIGHT)
    scene = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
    scene = (scene + rng.integers(-8, 8, scene.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
    for number in range(count):
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"threads": "1", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for at in range(0, 2 * FRAMES, 2):
                pixels = np.ascontiguousarray(scene[:, at : at + WIDTH])
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame.reformat(format="yuv420p")))
            container.mux(stream.encode())


def sounds(folder: Path, count: int) -> None:
    """Write Ogg Vorbis files of a tone that sinks into noise."""
    rng = np.random.default_rng(0)
    at = np.arange(RATE * SECONDS) / RATE
    for number in range(count):
        wave = 0.3 * np.sin(2 * np.pi * (220 + 40 * number) * at) * np.exp(-at) + 0.05 * rng.standard_normal(
            len(at)
        )
        soundfile.write(folder / f"{number}.ogg", wave.astype(np.float32), RATE)


def decode(modality: str, path: Path) -> None:
    """The bare decoder."""
    if modality == "image":
        Image.open(path).convert("RGB").load()
    elif modality == "video":
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for _ in container.decode(video=0):
                pass
    else:
        soundfile.read(path, dtype="float32")


def ways(modality: str) -> dict[str, Callable[[Path], None]]:
    loader, number = MediaLoader(), itertools.count()

    def load(path: Path, training: bool) -> None:
        rng = rng_for(1, 1, next(number), "augment") if training else None
        load_media(Row({modality: str(path)}, "table", 1), modality, loader, OPTIONS, rng, training)

    return {
        "bare decoder": lambda path: decode(modality, path),
        "evaluation": lambda path: load(path, False),
        "augmented": lambda path: load(path, True),
    }


def rates(ways: dict[str, Callable[[Path], None]], files: list[Path], least: float) -> list[float]:
    """Files a CPU second by each way, in turns; the first file is not counted."""
    seconds = dict.fromkeys(ways, 0.0)
    done = -1
    for path in itertools.cycle(files):
        for name, way in ways.items():
            begun = time.process_time()
            way(path)
            seconds[name] += time.process_time() - begun if done >= 0 else 0.0
        done += 1
        if done >= len(files) and min(seconds.values()) >= least:
            break
    return [done / each for each in seconds.values()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tuple(ENDINGS), default=list(ENDINGS))
    parser.add_argument("--folder", type=Path, help="files of one's own instead of made ones")
    parser.add_argument("--seconds", type=float, default=3.0, help="of the processor, at least, for each way")
    parser.add_argument("--files", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    makers: dict[str, Callable[[Path], object]] = {
        "image": lambda folder: pictures(folder, args.files),
        "video": lambda folder: clips(folder, args.files),
        "audio": lambda folder: sounds(folder, args.files),
    }
    print("| files | bare decoder | evaluation | augmented |\n|---|---|---|---|")
    for modality in args.only:
        with tempfile.TemporaryDirectory() as made:
            folder = args.folder or Path(made)
            if args.folder is None:
                makers[modality](folder)
            files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS[modality])[
                : args.files
            ]
            if not files:
                parser.error(f"--folder {folder}: no {modality} ({', '.join(ENDINGS[modality])}) below it")
            cells = [f"{rate:.0f}" for rate in rates(ways(modality), files, args.seconds)]
        print(f"| {modality} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
