"""Training steps of one model on one device: time, examples a second, memory, share of the matrix units' peak.

    python benchmarks/training_step.py [--arch unival_base] [--device cuda] [--only image video audio text]
                                       [--precision bfloat16 float32] [--backend sdpa naive]
                                       [--layout channels_last contiguous] [--profile]

Random inputs of the pretraining's sizes (images 384, 8 frames of 224, 10 s of sound at 16 kHz, 30 tokens in and out);
forward, label-smoothed loss, backward, gradient norm and Adam on float32 masters. The peak is that of a large
matrix product in the same run. Figures are medians over the updates after a warm-up.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from unival.losses import LossOptions, label_smoothed_loss
from unival.modeling import attention, audio, frontend
from unival.modeling.build import build_model
from unival.modeling.joining import MODALITIES

TEXT = 30
MEDIA = {
    "image": lambda n, device: {"patch_images": torch.randn(n, 3, 384, 384, device=device)},
    "video": lambda n, device: {"patch_videos": torch.randn(n, 3, 8, 224, 224, device=device)},
    "audio": lambda n, device: {"patch_audios": torch.randn(n, 160_000, device=device) * 0.1},
    "text": lambda n, device: {},
}
LAYOUTS = ("channels_last", "contiguous")


@contextmanager
def maps_in(layout: str) -> Iterator[None]:
    """Feature maps as the model chooses (channels last), or as they come."""
    before = frontend.channels_last
    if layout == "contiguous":
        frontend.channels_last = audio.channels_last = lambda x, **_: x
    try:
        yield
    finally:
        frontend.channels_last = audio.channels_last = before


def inputs(modality: str, batch: int, vocabulary: int, device: str) -> dict[str, Any]:
    tokens = torch.randint(4, vocabulary, (batch, TEXT), device=device)
    kind = MODALITIES.index(modality) if modality in MODALITIES else -1
    return {
        "src_tokens": tokens,
        "src_lengths": torch.full((batch,), TEXT),
        "prev_output_tokens": torch.randint(4, vocabulary, (batch, TEXT), device=device),
        "patch_types": torch.full((batch,), kind),
        **MEDIA[modality](batch, device),
    }


class Step:
    """One update in the engine's manner: weights in the compute type, float32 masters and moments."""

    def __init__(self, arch: str, modality: str, batch: int, precision: torch.dtype, device: str) -> None:
        networks = {
            "video_encoder_name": "all_resnext101" if modality == "video" else None,
            "audio_encoder_name": "pann_cnn14" if modality == "audio" else None,
        }
        torch.manual_seed(0)
        self.model = build_model(arch, sample_patch_num=144, **networks).to(device).train()
        self.model = self.model.to(precision)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        half = precision != torch.float32
        self.masters = [p.detach().float().requires_grad_() for p in parameters] if half else parameters
        self.parameters = parameters
        self.adam = torch.optim.AdamW(self.masters, lr=1e-5, fused=device.startswith("cuda"))
        self.net_input = inputs(modality, batch, self.model.decoder.embed_tokens.num_embeddings, device)
        self.target = self.net_input["prev_output_tokens"].roll(-1, 1)

    def forward_backward(self) -> None:
        logits, _ = self.model(**self.net_input)
        label_smoothed_loss(logits, self.target, LossOptions(label_smoothing=0.1)).loss.backward()

    def __call__(self) -> None:
        self.forward_backward()
        used = [(m, p) for m, p in zip(self.masters, self.parameters, strict=True) if p.grad is not None]
        if used[0][0] is not used[0][1]:
            for master, parameter in used:
                master.grad = parameter.grad.float()
        torch.nn.utils.clip_grad_norm_([m for m, _ in used], 1.0)
        self.adam.step()
        if used[0][0] is not used[0][1]:
            with torch.no_grad():
                torch._foreach_copy_([p for _, p in used], [m for m, _ in used])
        for tensor in (*self.masters, *self.parameters):
            tensor.grad = None


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matrix_peak(precision: torch.dtype, device: str) -> float:
    """FLOP a second of a large matrix product."""
    n = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(n, n, device=device, dtype=precision) for _ in range(2))
    times = []
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(times[3:])


def measure(step: Step, device: str, updates: int) -> dict[str, float]:
    with FlopCounterMode(display=False) as counter:
        step.forward_backward()
    for p in step.parameters:
        p.grad = None
    for _ in range(3):
        step()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(updates):
        synchronize(device)
        start = time.perf_counter()
        step()
        synchronize(device)
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else float("nan")
    return {"seconds": statistics.median(times), "flop": counter.get_total_flops(), "gib": peak}


def profile(step: Step) -> str:
    """Where three updates spend their time, on the device and in the calling process."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    orders = ("self_cuda_time_total", "self_cpu_time_total")
    return "\n".join(
        prof.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=70) for order in orders
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="unival_base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=tuple(MEDIA), default=list(MEDIA))
    parser.add_argument("--precision", nargs="+", default=["bfloat16"])
    parser.add_argument("--backend", nargs="+", choices=attention.BACKENDS, default=["sdpa"])
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=["channels_last"])
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--tf32", action="store_true", help="float32 products in TF32")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else args.device
    print(f"{name}, torch {torch.__version__}, {args.arch}")
    head = ("modality", "precision", "attention", "layout", "batch", "ms / update", "examples / s")
    print(f"| {' | '.join((*head, 'TFLOP/s', 'of peak', 'GiB'))} |\n{'|---' * 10}|")
    for precision in args.precision:
        dtype = getattr(torch, precision)
        ceiling = matrix_peak(dtype, args.device)
        for row in itertools.product(args.only, args.backend, args.layout, args.batch):
            modality, backend, layout, batch = row
            with attention.backend(backend), maps_in(layout):
                step = Step(args.arch, modality, batch, dtype, args.device)
                found = measure(step, args.device, args.updates)
                shown = profile(step) if args.profile else ""
            rate = found["flop"] / found["seconds"]
            cells = [modality, precision, backend, layout, batch, f"{found['seconds'] * 1e3:.1f}"]
            cells += [f"{batch / found['seconds']:.0f}", f"{rate / 1e12:.1f}", f"{rate / ceiling:.1%}"]
            print(f"| {' | '.join(map(str, cells))} | {found['gib']:.1f} |", flush=True)
            if shown:
                print(shown)
            del step


if __name__ == "__main__":
    main()
