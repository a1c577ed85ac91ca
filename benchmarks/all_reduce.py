"""Updates of two processes: gradients exchanged after the backward pass, beside it, and not at all.

    python benchmarks/all_reduce.py [--arch unival_base] [--groups image video] [--accumulate 1] [--rounds 5]

Two ranks of one thread each meet through gloo on this machine. An update is the forward passes of one group of rows
each, one backward pass of the sum of their losses (accumulated as often as asked for) and the exchange; no optimizer.
"legacy" is ``--ddp-backend legacy_ddp``, "beside" is ``c10d``, "torch" torch's DistributedDataParallel (for a single
group, which is all it can follow), "alone" exchanges nothing. They take turns, on models with equal weights. Seconds
are medians on rank 0 after one round for warming up; "not hidden" is what an update takes beyond "alone", as a share
of what "legacy" takes beyond it.
Processes, gloo and its copies share the cores here: what a network card does beside a GPU is not seen.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

NETWORKS = {
    "image": {"image_encoder_name": "timm_resnet"},
    "video": {"video_encoder_name": "all_resnext101"},
    "audio": {"audio_encoder_name": "pann_cnn14"},
}
VOCABULARY = 59457


def inputs(group: str, rows: int, pixels: int) -> dict[str, Any]:
    """A batch of one modality: 8 source and 16 target tokens, a picture, four frames or a second of sound."""
    media = {
        "image": ("patch_images", (3, pixels, pixels)),
        "video": ("patch_videos", (3, 4, pixels, pixels)),
        "audio": ("patch_audios", (32000,)),
    }
    name, shape = media[group]
    return {
        "src_tokens": torch.randint(4, VOCABULARY, (rows, 8)),
        "src_lengths": None,
        "prev_output_tokens": torch.randint(4, VOCABULARY, (rows, 16)),
        "patch_types": torch.full((rows,), list(media).index(group)),
        name: torch.randn(rows, *shape) * 0.1,
    }


def wrapped(manner: str, arch: str, groups: list[str]) -> nn.Module:
    from unival.modeling.build import build_model
    from unival.models.parallel import DataParallel, LegacyDataParallel

    torch.manual_seed(0)
    networks = {"image_encoder_name": "none"}
    for group in groups:
        networks |= NETWORKS[group]
    model = build_model(arch, VOCABULARY, **networks).train()
    if manner == "legacy":
        return LegacyDataParallel(model, dist.group.WORLD, 2**28)
    if manner == "torch":
        return DistributedDataParallel(model, find_unused_parameters=True)
    return DataParallel(model, dist.group.WORLD)


def update(manner: str, model: Any, batches: list[dict[str, Any]], accumulate: int) -> tuple[float, float]:
    """Return the seconds of an update, and of them those behind its backward pass."""
    for parameter in model.parameters():
        parameter.grad = None
    dist.barrier()
    began = time.perf_counter()
    for turn in range(accumulate):
        last = turn == accumulate - 1 and manner != "alone"
        with nullcontext() if last else model.no_sync():
            torch.stack([model(**batch)[0].square().mean() for batch in batches]).sum().backward()
    behind = time.perf_counter()
    if manner not in ("alone", "torch"):
        model.all_reduce_grads()
    return time.perf_counter() - began, time.perf_counter() - behind


def rank(number: int, port: int, args: argparse.Namespace) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=number, world_size=2)
    manners = ["legacy", "beside", "alone"] + ["torch"] * (len(args.groups) == 1)
    models = {m: wrapped(m, args.arch, args.groups) for m in manners if m != "alone"}
    models["alone"] = models["beside"]
    torch.manual_seed(number)
    batches = [inputs(group, args.rows, args.pixels) for group in args.groups]
    taken: dict[str, list[tuple[float, float]]] = {m: [] for m in manners}
    for _ in range(args.rounds + 1):
        for manner in manners:
            taken[manner].append(update(manner, models[manner], batches, args.accumulate))
    if number == 0:
        report(taken, models["beside"], args)
    dist.barrier()
    dist.destroy_process_group()


def report(taken: dict[str, list[tuple[float, float]]], model: Any, args: argparse.Namespace) -> None:
    size = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad) / 2**20
    print(
        f"{args.arch}, {' + '.join(args.groups)}, {args.rows} rows of {args.pixels} pixels, {args.accumulate} "
        f"accumulated: {size:.0f} MiB of gradients in {len(model.buckets)} buckets"
    )
    alone = [whole for whole, _ in taken["alone"][1:]]
    legacy = [whole for whole, _ in taken["legacy"][1:]]
    for manner, pairs in taken.items():
        whole = [pair[0] for pair in pairs[1:]]
        ratio = statistics.median(a / b for a, b in zip(whole, legacy, strict=True))
        behind = statistics.median(pair[1] for pair in pairs[1:])
        beyond = (statistics.median(whole) - statistics.median(alone)) / (
            statistics.median(legacy) - statistics.median(alone)
        )
        print(
            f"{manner:7} {statistics.median(whole):7.3f} s ({min(whole):.2f} to {max(whole):.2f}), {behind:6.3f} s "
            f"of it behind the backward pass; x{ratio:.2f} of legacy; not hidden {beyond:.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="unival_base")
    parser.add_argument("--groups", nargs="+", default=["image", "video"], choices=list(NETWORKS))
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(rank, (port, args), nprocs=2)


if __name__ == "__main__":
    main()
