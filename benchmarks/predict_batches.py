"""Pictures in batches against one by one, through the Python interface.

Usage: python benchmarks/predict_batches.py [CHECKPOINT] [--images 200] [--batch 16] [--threads 2] [--repeat 3]
Without a checkpoint a random model of the quickstart's size (configs/tiny/model.yaml) is made. Prints pictures a
second both ways, their ratio (best of ``--repeat`` rounds, the two ways alternating), and whether all texts are
the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unival
from unival.checkpoint import save_folder
from unival.core.recipe import load_recipe
from unival.modeling.config import option_fields
from unival.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]


def tiny(folder: Path) -> Path:
    """Write a random model of the quickstart's size whose output depends on the picture."""
    recipe = load_recipe(ROOT / "configs/tiny/caption.yaml")
    known = {field.name for field in option_fields()}
    options = {name: value for name, value in recipe.options.items() if name in known and value is not None}
    vocabulary = Vocabulary.train(["a red circle on a blue square above two green bars"] * 20, 600, 64, 1000)
    torch.manual_seed(0)
    model = unival.build_model(recipe.choices["arch"], vocab_size=len(vocabulary), **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_images" not in name:
                parameter.mul_(3)
    names = {"patch_image_size", "max_image_size"}
    task = {name: value for name, value in recipe.options.items() if name in names and value is not None}
    entry = {"task": {"name": "caption", "modality": "image"}, "task_options": task}
    return save_folder(folder / "model", model, vocabulary, extra=entry)


def pictures(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 320 x 240 pixels."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bpe-dir")
    parser.add_argument("--beam", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = args.checkpoint or tiny(folder)
        model = unival.load(checkpoint, batch_size=args.batch, bpe_dir=args.bpe_dir)
        given = pictures(folder, args.images)
        model.caption(given[: args.batch], beam=args.beam)
        times: dict[str, list[float]] = {"alone": [], "together": []}
        for _ in range(args.repeat):
            start = time.perf_counter()
            alone = [model.caption(path, beam=args.beam) for path in given]
            middle = time.perf_counter()
            together = model.caption(given, beam=args.beam)
            times["alone"].append(middle - start)
            times["together"].append(time.perf_counter() - middle)
    same = sum(one.text == two.text for one, two in zip(alone, together, strict=True))
    one, many = min(times["alone"]), min(times["together"])
    size = f"{model.info['size']}, {model.info['parameters'] / 1e6:.1f} M parameters"
    print(f"{size}; {args.threads} threads, beam {args.beam}")
    print(
        f"one by one {args.images / one:.1f} pictures a second, in batches of {args.batch} {args.images / many:.1f}"
    )
    print(
        f"ratio {one / many:.2f}; same text {same} of {args.images}, {len({r.text for r in alone})} different"
    )


if __name__ == "__main__":
    main()
