"""A batch of a validation, loss and beam search, in units of a network everybody has.

    python benchmarks/validation_step.py [--batch 8] [--precision float32 bfloat16] [--rounds 3]

E is one evaluation forward pass of timm's resnet101 as it comes: batch 1, 384 pixels, float32. Pictures of 384 pixels,
8 source tokens, a loss over 16 target tokens, then beam 5 to 16 tokens, base model, random weights and inputs; figures
are for one picture, user CPU seconds. "before" encodes the batch for the loss and again for the search.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

from generation_units import BEAM, TOKENS, VOCABULARY, net_input, unit
from turns import Run, Side, before_and_now, end_of_unit


def step(batch: int, precision: str, manner: str = "now") -> Run:
    """Loss and search as the task's validation step asks for them."""
    import torch

    from unival import build_model
    from unival.generate import GenerationSettings, generate
    from unival.losses import LossOptions, label_smoothed_loss
    from unival.modeling.encoding import encoded_once
    from unival.modeling.joining import as_precision
    from unival.modeling.products import generating

    torch.manual_seed(0)
    dtype = getattr(torch, precision)
    model = build_model("unival_base", VOCABULARY).to(dtype).eval()
    targets = torch.randint(4, 999, (batch, TOKENS))
    inputs = as_precision(net_input(batch) | {"prev_output_tokens": targets}, dtype)
    settings = GenerationSettings(beam=BEAM, min_len=TOKENS, max_len_b=TOKENS)

    @torch.no_grad()
    def run() -> None:
        with encoded_once() if manner == "now" else nullcontext():
            with generating() if manner == "now" else nullcontext():
                logits, _ = model(**inputs)
            label_smoothed_loss(logits, targets.roll(-1, 1), LossOptions(label_smoothing=0.1))
            generate(model, inputs, settings)

    return run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    yardstick = Side(args.threads, unit)
    print("| precision | before | now | peak before | peak now |\n" + "|---" * 5 + "|")
    for precision in args.precision:
        found = before_and_now(yardstick, args.threads, args.rounds, step, args.batch, precision)
        cells = [f"{taken.user / args.batch:.3g} E" for taken in found]
        cells += [f"{taken.peak:.2f} GB" for taken in found]
        print(f"| {precision} | {' | '.join(cells)} |", flush=True)
    end_of_unit(yardstick, "E", args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
