"""Networks of media in evaluation with norms, ReLUs and sums as torch's passes and in their convolutions.

    python benchmarks/folded_norms.py [--only pictures clips sounds small] [--precision float32 bfloat16] [--rounds 5]

Milliseconds of the processor (user and system) for a batch, least of the rounds, both ways in turns within searches,
with their order of maps (``unival/modeling/folding.py``): the released ResNet-101 (2 pictures of 384 pixels),
ResNeXt-101 (a clip of 8 x 224) and CNN14 (10 s), and the quickstart's ResNet (24 pictures of 64 pixels), random
weights. "first" is the first search with new weights, which makes the copies. Last columns: memory of the copies, and
how far apart the features lie, as a share of their norm. ``ONEDNN_MAX_CPU_ISA=AVX2`` in front shows kernels of lesser
processors.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from unival.modeling import copies, folding
from unival.modeling.audio import build_audio_encoder
from unival.modeling.config import ModelConfig
from unival.modeling.image import build_image_encoder
from unival.modeling.layers import channels_last
from unival.modeling.products import generating
from unival.modeling.video import build_video_encoder

SHAPES = {
    "pictures": (2, 3, 384, 384),
    "clips": (1, 3, 8, 224, 224),
    "sounds": (1, 480000),
    "small": (24, 3, 64, 64),
}


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"resnet_type": "resnet10t"} if name == "small" else {}
    config = ModelConfig.from_options(
        video_encoder_name="all_resnext101", audio_encoder_name="pann_cnn14", hop_size=200, **options
    )
    parts = {"clips": (build_video_encoder, config.video), "sounds": (build_audio_encoder, config.audio)}
    build, part = parts.get(name, (build_image_encoder, config.image))
    network = build(part)
    assert network is not None
    for norm in network.modules():
        # a last norm of zero would hide its branch
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(norm.weight, 0.2, 0.6)
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    return network.eval()


@torch.no_grad()
def taken(network: nn.Module, media: Tensor, fold: bool) -> tuple[float, Tensor]:
    """Milliseconds, features."""
    folding.PAYS = fold
    begun = time.process_time()
    with generating():
        if media.dim() == 4:
            features = network.forward_features(channels_last(media))
        else:
            features = network(media)
    return (time.process_time() - begun) * 1e3, features.float()


def size_of_copies() -> float:
    """MB."""
    made = [copy.made for copy in copies._copies.values() if copy.made is not None]
    return sum(folded.weight.numel() * folded.weight.element_size() for folded in made) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tuple(SHAPES), default=list(SHAPES))
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        "| network | precision | torch's passes | folded | times | first | copies | apart |\n"
        + "|---" * 8
        + "|"
    )
    for name in args.only:
        for precision in args.precision:
            dtype = getattr(torch, precision)
            network, media = network_of(name).to(dtype), torch.randn(*SHAPES[name]) * 0.1
            if name != "sounds":
                media = media.to(dtype)
            taken(network, media, False)
            first, _ = taken(network, media, True)
            found = [[taken(network, media, fold) for fold in (False, True)] for _ in range(args.rounds)]
            before, now = (min(turn[side][0] for turn in found) for side in (0, 1))
            (_, theirs), (_, ours) = found[-1]
            far = ((theirs - ours).norm() / theirs.norm()).item()
            print(
                f"| {name} | {precision} | {before:.0f} | {now:.0f} | {before / now:.2f} | {first:.0f} | "
                f"{size_of_copies():.0f} MB | {far:.1e} |",
                flush=True,
            )
            copies.release()


if __name__ == "__main__":
    main()
