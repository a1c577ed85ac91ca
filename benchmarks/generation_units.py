"""Beam search of the base model on a CPU, in units of a network everybody has.

    python benchmarks/generation_units.py [--batch 1 16] [--precision float32 bfloat16] [--rounds 3]

E is one evaluation forward pass of timm's resnet101 as it comes: batch 1, 384 pixels, float32. A search has beam 5, 16
tokens and then the end symbol for every picture (the shortest length is the longest), one picture of 384 pixels and 8
source tokens a row, random weights and inputs; figures are for one picture. "before" has products and feature maps as
torch computes them on any processor, sends all pictures of a batch through their network at once and takes the best
continuations by torch's topk. Unit and searches take turns in their processes, so that what else the machine does
falls on all; times are user CPU seconds, beside them those of the system, most of which clears pages. The column of the
reference is its measurement on two cores of an AMD Zen 4 by the same method (data, not run here).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from turns import Run, Side, before_and_now, end_of_unit

SOURCE, TOKENS, BEAM, PIXELS, VOCABULARY = 8, 16, 5, 384, 59457
REFERENCE = {
    ("1", "float32"): "4.87 E",
    ("1", "bfloat16"): "2.41 E",
    ("16", "float32"): "2.51 E",
    ("16", "bfloat16"): "-",
}


def unit() -> Run:
    """One E."""
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model("resnet101").eval()
    picture = torch.randn(1, 3, PIXELS, PIXELS)

    @torch.no_grad()
    def run() -> None:
        network(picture)

    return run


def net_input(batch: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(1)
    return {
        "src_tokens": torch.randint(4, 999, (batch, SOURCE)),
        "src_lengths": torch.full((batch,), SOURCE),
        "patch_images": torch.randn(batch, 3, PIXELS, PIXELS),
    }


def search(batch: str, precision: str, manner: str = "now") -> Run:
    """A beam search over ``batch`` pictures."""
    import torch

    from unival import build_model
    from unival.generate import GenerationSettings, beam, generate
    from unival.modeling import products, row_parts
    from unival.modeling.joining import as_precision

    if manner == "before":
        products.WAY = None
        row_parts.BYTES = 2**60
        beam.largest = lambda scores, count: scores.topk(count, dim=1)
    torch.manual_seed(0)
    dtype = getattr(torch, precision)
    model = build_model("unival_base", VOCABULARY).to(dtype)
    inputs = as_precision(net_input(int(batch)), dtype)
    settings = GenerationSettings(beam=BEAM, min_len=TOKENS, max_len_b=TOKENS)

    def run() -> None:
        found = generate(model, inputs, settings)
        assert all(len(best.tokens) == TOKENS + 1 for row in found for best in row)

    return run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", nargs="+", choices=("1", "16"), default=["1", "16"])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    yardstick = Side(args.threads, unit)
    head = ("batch", "precision", "before", "now", "system before", "system now", "peak before", "peak now")
    head += ("reference (Zen 4)",)
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for batch in args.batch:
        for precision in args.precision:
            found = before_and_now(yardstick, args.threads, args.rounds, search, batch, precision)
            cells = [f"{taken.user / int(batch):.3g} E" for taken in found]
            cells += [f"{taken.system / int(batch):.3f} s" for taken in found]
            cells += [f"{taken.peak:.2f} GB" for taken in found]
            print(
                f"| {batch} | {precision} | {' | '.join(cells)} | {REFERENCE[batch, precision]} |", flush=True
            )
    end_of_unit(yardstick, "E", args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
