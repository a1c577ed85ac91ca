"""Peak memory of the loss over the full vocabulary, beside the plain formula.

Usage: python benchmarks/loss_memory.py [--rows 4096] [--vocab 59457] [--device cpu] [--plain] [--bonus]
Prints the peak above the logits themselves, in units of one float32 (rows, V) tensor; the gradient that any
loss needs is one unit (half a unit for bf16 logits).
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from unival.losses import LossOptions, label_smoothed_loss


def plain(logits: torch.Tensor, target: torch.Tensor, eps: float) -> torch.Tensor:
    log_probs = torch.log_softmax(logits.float(), -1)
    nll = -log_probs.gather(-1, target.unsqueeze(-1)).sum()
    mass = eps / (logits.size(-1) - 1)
    return (1 - eps - mass) * nll - mass * log_probs.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=59457)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--plain", action="store_true", help="measure the plain formula instead")
    parser.add_argument("--bonus", action="store_true", help="with the encouraging bonus")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    logits = torch.zeros(1, args.rows, args.vocab, device=args.device, dtype=dtype).normal_().requires_grad_()
    target = torch.randint(4, args.vocab, (1, args.rows), device=args.device)
    options = LossOptions(label_smoothing=0.1, encouraging=args.bonus)
    small = torch.zeros(1, 2, args.vocab, device=args.device, dtype=dtype, requires_grad=True)
    label_smoothed_loss(small, target[:, :2], options).loss.backward()  # warm up
    cuda = args.device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    loss = plain(logits, target, 0.1) if args.plain else label_smoothed_loss(logits, target, options).loss
    loss.backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    unit = args.rows * args.vocab * 4
    print(
        f"{'plain' if args.plain else 'chunked'} loss, {args.rows} rows, {args.dtype}: peak above the logits "
        f"{(peak - before) / unit:.2f} x one float32 (rows, V) of {unit / 2**20:.0f} MiB, {seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
