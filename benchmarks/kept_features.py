"""Time and memory of training updates with a frozen image network, with and without kept features.

    python benchmarks/kept_features.py [--backbone tf_efficientnet_lite0] [--size 224] [--pictures 32] [--epochs 3]

Pictures are real JPEG files, read, resized, and run through the network by the code of training. Each variant runs in
a process of its own; its first epoch, which fills the shelf, is measured apart. Seconds are processor time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unival import build_model
from unival.batching.batch import Example, collate
from unival.media.features import used
from unival.media.loader import MediaLoader
from unival.specs import SpecOptions
from unival.specs.inputs import load_media
from unival.tables.row import Row

BATCH = 8


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3, help="measured after the first")
    parser.add_argument("--variant", choices=("pixels", "kept"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of the first epoch and of a later one, and the peak of memory of the whole process."""
    from unival.tasks.keeping import Keeping, keeping
    from unival.tasks.options import TaskOptions

    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = Path(args.folder)
    sizes = {"embed_dim": 256, "ffn_embed_dim": 1024, "layers": 2, "attention_heads": 4}
    options = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sizes.items()}
    options |= {"image_encoder_name": "timm", "image_backbone": args.backbone, "freeze_image_encoder": True}
    model = build_model("unival_tiny", 2000, **options).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    loader, spec = MediaLoader(root=folder), SpecOptions(patch_image_size=args.size)
    kept = None
    if args.variant == "kept":
        kept = Keeping(TaskOptions(keep_features=str(folder / "shelf")), model)
        loader.features = kept.shelf

    def epoch() -> float:
        start = time.process_time()
        for at in range(0, args.pictures, BATCH):
            examples = []
            for i in range(at, min(at + BATCH, args.pictures)):
                media = load_media(
                    Row({"image": f"{i}.jpg"}, "table", i + 1), "image", loader, spec, None, True
                )
                ids = torch.randint(4, 2000, (12,))
                examples.append(Example(str(i), ids, ids, ids, **media))
            batch = collate(examples)
            with keeping(kept, model, batch):
                logits, _ = model(**batch["net_input"])
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["target"].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
        return time.process_time() - start

    first = epoch()
    later = sorted(epoch() for _ in range(args.epochs))[args.epochs // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": first, "later": later, "peak": peak, "disk": used(folder / "shelf") / 1e6}


def main() -> None:
    args = parsed()
    if args.variant:
        print(json.dumps(measure(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for i in range(args.pictures):
            coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(Path(folder) / f"{i}.jpg")
        found = {}
        for variant in ("pixels", "kept"):
            words = [sys.executable, __file__, *sys.argv[1:], "--variant", variant, "--folder", folder]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found[variant] = json.loads(done.stdout.splitlines()[-1])
    pixels, kept = found["pixels"], found["kept"]
    for name, each in found.items():
        print(
            f"{name}: first epoch {each['first']:.2f} s, later {each['later']:.2f} s, peak {each['peak']:.0f} MiB"
        )
    print(
        f"a later epoch: {pixels['later'] / kept['later']:.1f} times as fast; the first takes "
        f"{kept['first'] / pixels['first']:.2f} times as long; {kept['disk']:.1f} MB on disk"
    )


if __name__ == "__main__":
    main()
