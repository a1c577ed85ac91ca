"""A captioning update beside what else one would take: BLIP and a model of nanoVLM's sizes, on the same cores.

    pip install transformers
    python benchmarks/side_by_side.py [--precision float32 bfloat16] [--rounds 3]

All with random weights, batch 2, 8 tokens of prompt and 16 of caption, loss over the caption, gradients clipped to 1,
Adam in one pass; times are user CPU seconds per example, as multiples of ours at the same picture size in the same run.
BLIP: transformers' classes at the sizes of blip-image-captioning-base (ViT-B/16 at 384 pixels, 12 + 12 layers of 768).
nanoVLM's first public settings (222 M): SigLIP-B/16 at 224 pixels, SmolLM2-135M, 49 image tokens, built from
transformers' classes. Not equal: ours has a ResNet-101 and 6 + 6 layers and keeps its table of 59,457 tokens as it is,
theirs train theirs (30,524 and 49,152); BLIP's decoder looks at 577 tokens of a picture, ours at 144 (stride 32) and
the prompt; nanoVLM has 49 image tokens, ours beside it too.
In bfloat16 theirs are under torch's autocast with float32 weights, the usual way; ours has float32 masters.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import nullcontext
from typing import Any

from step_units import step
from turns import Run, Side

BATCH, PROMPT, CAPTION = 2, 8, 16


def blip() -> tuple[Any, dict[str, Any]]:
    """The model and the arguments of a captioning update."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    config = BlipConfig()
    config.vision_config.image_size = 384
    tokens = torch.randint(5, 30000, (BATCH, PROMPT + CAPTION))
    labels = tokens.clone()
    labels[:, :PROMPT] = -100
    pictures = torch.randn(BATCH, 3, 384, 384)
    return BlipForConditionalGeneration(config), {
        "pixel_values": pictures,
        "input_ids": tokens,
        "labels": labels,
    }


def nanovlm() -> tuple[Any, dict[str, Any]]:
    """The model and the arguments of a captioning update."""
    import torch
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152}
    words = LlamaConfig(**sizes, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eye = SiglipVisionModel(SiglipVisionConfig(image_size=224, patch_size=16))
            self.projection = nn.Linear(4 * 768, 576, bias=False)
            self.language = LlamaForCausalLM(words)

        def forward(self, pictures: torch.Tensor, tokens: torch.Tensor, labels: torch.Tensor) -> Any:
            patches = self.eye(pictures).last_hidden_state.unflatten(1, (14, 14))
            blocks = patches.unflatten(1, (7, 2)).unflatten(3, (7, 2)).transpose(2, 3)  # (B, 7, 7, 2, 2, 768)
            seen = self.projection(blocks.flatten(3).flatten(1, 2))
            joined = torch.cat([seen, self.language.get_input_embeddings()(tokens)], 1)
            masked = torch.cat([labels.new_full(seen.shape[:2], -100), labels], 1)
            return self.language(inputs_embeds=joined, labels=masked)

    tokens = torch.randint(5, 49000, (BATCH, PROMPT + CAPTION))
    labels = tokens.clone()
    labels[:, :PROMPT] = -100
    return Model(), {"pictures": torch.randn(BATCH, 3, 224, 224), "tokens": tokens, "labels": labels}


def other(name: str, precision: str) -> Run:
    """An update of ``name`` as its users make it."""
    import torch

    torch.manual_seed(0)
    model, inputs = {"blip": blip, "nanovlm": nanovlm}[name]()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    print(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters", file=sys.stderr)

    def run() -> None:
        optimizer.zero_grad()
        half = precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=("blip", "nanovlm"), default=["blip", "nanovlm"])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    head = (
        "model",
        "pixels",
        "precision",
        "its seconds an example",
        "ours",
        "its time in ours",
        "its peak",
        "ours",
    )
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for name in args.only:
        pixels = {"blip": 384, "nanovlm": 224}[name]
        for precision in args.precision:
            sides = (Side(1, other, name, precision), Side(1, step, "caption", precision, "now", pixels))
            rounds = [[side.measure() for side in sides] for _ in range(args.rounds)]
            for side in sides:
                side.end()
            theirs, ours = (statistics.median(turn[k].user for turn in rounds) / BATCH for k in (0, 1))
            ratio = statistics.median(turn[0].user / turn[1].user for turn in rounds)
            peaks = [f"{rounds[-1][k].peak:.2f} GB" for k in (0, 1)]
            cells = (name, str(pixels), precision, f"{theirs:.2f}", f"{ours:.2f}", f"{ratio:.2f}", *peaks)
            print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
