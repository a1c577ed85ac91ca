"""Captions a second of the base model on one device: beam search over pictures that are there already.

    python benchmarks/captions_per_second.py [--device cuda] [--batch 64] [--precision bfloat16] [--beam 5]
                                             [--tokens 16] [--times 5] [--json FILE] [--tiny]

Every search makes as many tokens and the end symbol (the shortest length is the longest), from one picture of 384
pixels and 8 source tokens a row, random weights and inputs (benchmarks/generation_units.py has the same search on a
CPU, in units of a network). Medians behind a warm-up.
"""

from __future__ import annotations

import argparse
import sys

import torch
from device_rows import Rows, device_name, problem, seconds_of
from step_inputs import BASE, TINY, model_of

from unival.generate import GenerationSettings, generate

SOURCE = 8


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--precision", nargs="+", default=["bfloat16"])
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="append every row as a line of JSON")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: does the script run?")
    args = parser.parse_args()
    sizes = TINY if args.tiny else BASE
    print(f"{device_name(args.device)}, torch {torch.__version__}, {sizes.arch}", flush=True)
    table = Rows(args.json, ("precision", "rows", "beam", "tokens", "ms / search", "captions / s", "GiB"))
    settings = GenerationSettings(beam=args.beam, min_len=args.tokens, max_len_b=args.tokens)
    for precision in args.precision:
        dtype = getattr(torch, precision)
        model = model_of(sizes, ("image",)).to(args.device, dtype)
        for rows in args.batch:
            values = {"part": "generation", "precision": precision, "batch": rows, "beam": args.beam}
            values |= {"tokens": args.tokens}
            inputs = {
                "src_tokens": torch.randint(4, sizes.vocabulary, (rows, SOURCE)).to(args.device),
                "src_lengths": torch.full((rows,), SOURCE),
                "patch_images": torch.randn(rows, 3, sizes.pixels, sizes.pixels).to(args.device, dtype),
            }

            def search(inputs: dict[str, torch.Tensor] = inputs, model: torch.nn.Module = model) -> None:
                found = generate(model, inputs, settings)
                assert all(len(best.tokens) == args.tokens + 1 for row in found for best in row)

            cells = [precision, rows, args.beam, args.tokens]
            try:
                seconds = seconds_of(search, args.times, args.device, warm=2)
            except Exception as error:
                table.add(cells, **values, error=problem(error))
                continue
            cuda = args.device.startswith("cuda")
            gib = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
            cells += [f"{seconds * 1e3:.1f}", f"{rows / seconds:.0f}", f"{gib:.1f}"]
            table.add(cells, **values, seconds=seconds, gib=gib)
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
