"""Training step with and without sharing the encoding of a picture among the examples of its row.

    python benchmarks/shared_media.py [--size 64] [--rows 24] [--steps 5]

A pretraining row gives two examples of one picture. Both variants run in turn in one process; the ratio of
their median step times is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from unival import build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--resnet", default="resnet10t")
    args = parser.parse_args()
    torch.manual_seed(0)
    sizes = {"embed_dim": 128, "ffn_embed_dim": 512, "layers": 2, "attention_heads": 4}
    options = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sizes.items()}
    model = build_model("unival_tiny", 1600, resnet_type=args.resnet, **options).train()
    batch = 2 * args.rows
    images = torch.randn(args.rows, 3, args.size, args.size)
    rows = torch.arange(args.rows).repeat_interleave(2)
    source, target = torch.randint(4, 1000, (batch, 16)), torch.randint(4, 1000, (batch, 12))
    types = torch.zeros(batch, dtype=torch.long)

    def step(shared: bool) -> float:
        start = time.perf_counter()
        media = {"patch_images": images, "patch_rows": rows} if shared else {"patch_images": images[rows]}
        logits, _ = model(source, None, target, patch_types=types, **media)
        logits.logsumexp(-1).sum().backward()
        model.zero_grad()
        return time.perf_counter() - start

    times: dict[bool, list[float]] = {True: [], False: []}
    step(True), step(False)
    for _ in range(args.steps):
        for shared in (False, True):
            times[shared].append(step(shared))
    apart, together = statistics.median(times[False]), statistics.median(times[True])
    print(f"apart {apart:.3f} s, shared {together:.3f} s, ratio {apart / together:.2f}")


if __name__ == "__main__":
    main()
