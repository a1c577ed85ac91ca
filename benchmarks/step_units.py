"""Training steps of the base model on a CPU, in units of a network everybody has.

    python benchmarks/step_units.py [--only caption video audio quickstart] [--precision float32 bfloat16] [--rounds 3]

T is one forward and backward pass of timm's resnet101 as it comes: training mode, batch 2, 384 pixels, float32.
A step is an update as the engine's trainer makes it: gradients to zero, forward, label-smoothed loss, backward,
scaling, clipping to 1.0, Adam; 8 source and 16 target tokens, token table frozen, random weights and inputs. The video
model also has the image network, as the released ones do; "quickstart" is the small model of configs/tiny, 24 pictures
of 64 pixels, all of it trained. "before" has feature maps as they come, all of them kept, convolutions in torch's form,
the engine's own Adam and glibc's way with freed memory. Unit and steps take turns in their processes, so that what else
the machine does falls on all; times are user CPU seconds, "system" is the system's of an update. The column of the
reference is its measurement on two cores of an AMD Zen 4 by the same method (data, not run here).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from turns import Run, Side, before_and_now, end_of_unit

SOURCE, TARGET, VOCABULARY = 8, 16, 59457
REFERENCE = {
    "caption": "1.63 T, 4.6 GB",
    "video": "0.81 T, 4.2 GB",
    "audio": "2.46 T, 5.4 GB",
    "quickstart": "-",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "caption": {},
    "video": {"video_encoder_name": "all_resnext101"},
    "audio": {"image_encoder_name": "none", "audio_encoder_name": "pann_cnn14", "hop_size": 200},
    "quickstart": {"image_encoder_name": "resnet", "resnet_type": "resnet10t"}
    | dict.fromkeys(("encoder_embed_dim", "decoder_embed_dim"), 128)
    | dict.fromkeys(("encoder_ffn_embed_dim", "decoder_ffn_embed_dim"), 512)
    | dict.fromkeys(("encoder_layers", "decoder_layers"), 2)
    | dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
}


def unit() -> Run:
    """One T."""
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model("resnet101").train()
    pictures = torch.randn(2, 3, 384, 384)

    def run() -> None:
        network(pictures).sum().backward()

    return run


def net_input(kind: str, pixels: int = 384) -> dict[str, Any]:
    import torch

    torch.manual_seed(1)
    batch = {"video": 1, "quickstart": 24}.get(kind, 2)
    media = {
        "caption": lambda: {"patch_images": torch.randn(batch, 3, pixels, pixels)},
        "video": lambda: {"patch_videos": torch.randn(batch, 3, 8, 224, 224)},
        "audio": lambda: {"patch_audios": torch.randn(batch, 480_000) * 0.1},
        "quickstart": lambda: {"patch_images": torch.randn(batch, 3, 64, 64)},
    }[kind]()
    return {
        "src_tokens": torch.randint(4, 999, (batch, SOURCE)),
        "src_lengths": torch.full((batch,), SOURCE),
        "prev_output_tokens": torch.randint(4, 999, (batch, TARGET)),
        "patch_types": torch.full((batch,), {"video": 1, "audio": 2}.get(kind, 0)),
        **media,
    }


def as_before() -> None:
    """Feature maps as they come and kept, convolutions in torch's form, and the engine's own Adam and masters."""
    from fairseq import optim
    from fairseq.optim import adam, fp16_optimizer

    import unival.plugin  # noqa: F401
    from unival.modeling import audio, convolutions, frontend, remaking, video

    for name in ("GroupedConv3d", "NarrowConv2d", "PointwiseConv3d", "StridedConv2d"):
        form = getattr(convolutions, name)
        form.forward = form.__bases__[0].forward
    frontend.channels_last = audio.channels_last = lambda x, **_: x
    video.AMX = False
    remaking.LEAST = 2**60
    optim.OPTIMIZER_REGISTRY["adam"] = adam.FairseqAdam
    optim.FP16Optimizer = fp16_optimizer.FP16Optimizer


def step(kind: str, precision: str, manner: str = "now", pixels: int = 384) -> Run:
    """An update through the engine's optimizer of that name, as its trainer builds it."""
    import torch
    from updates import apply_gradients, engine_optimizer, give_precision

    from unival import build_model
    from unival.core.allocator import keep_freed_memory
    from unival.losses import LossOptions, label_smoothed_loss
    from unival.modeling.joining import as_precision

    if manner == "before":
        as_before()
    else:
        keep_freed_memory()
    torch.manual_seed(0)
    small = kind == "quickstart"
    frozen = dict.fromkeys(("freeze_encoder_embedding", "freeze_decoder_embedding"), not small)
    arch, vocabulary = ("unival_tiny", 1700) if small else ("unival_base", VOCABULARY)
    model = build_model(arch, vocabulary, **frozen, **NETWORKS[kind])
    dtype = getattr(torch, precision)
    give_precision(model, dtype, keep_batch_norm=manner == "now")
    optimizer = engine_optimizer(model, dtype)
    inputs = as_precision(net_input(kind, pixels), dtype)
    target = inputs["prev_output_tokens"].roll(-1, 1)

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        logits, _ = model(**inputs)
        output = label_smoothed_loss(logits, target, LossOptions(label_smoothing=0.1))
        del logits
        optimizer.backward(output.loss)
        apply_gradients(optimizer, output.sample_size)

    return run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    yardstick = Side(args.threads, unit)
    head = ("step", "precision", "before", "now", "system before", "now", "peak before", "now")
    head += ("reference (float32, Zen 4)",)
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for kind in args.only:
        for precision in args.precision:
            found = before_and_now(yardstick, args.threads, args.rounds, step, kind, precision)
            cells = [f"{taken.user:.3g} T" for taken in found]
            cells += [f"{taken.system:.2f} s" for taken in found] + [
                f"{taken.peak:.2f} GB" for taken in found
            ]
            print(f"| {kind} | {precision} | {' | '.join(cells)} | {REFERENCE[kind]} |", flush=True)
    end_of_unit(yardstick, "T", args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
