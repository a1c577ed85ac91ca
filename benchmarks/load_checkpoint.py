"""Time from a checkpoint to a predictor, in a process that cannot import the training engine.

Usage: python benchmarks/load_checkpoint.py CHECKPOINT [--bpe-dir FOLDER] [--repeat 3]
Prints the seconds of ``import unival`` and of ``unival.load`` (best and all rounds), by the clock and of the CPU.
"""

from __future__ import annotations

import argparse
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--bpe-dir")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    for name in ("fairseq", "fairseq_cli", "omegaconf", "hydra"):
        sys.modules[name] = None  # type: ignore[assignment]
    start = time.perf_counter()
    import unival

    print(f"import unival: {time.perf_counter() - start:.2f} s")
    rounds = []
    for _ in range(args.repeat):
        start, work = time.perf_counter(), time.process_time()
        model = unival.load(args.checkpoint, bpe_dir=args.bpe_dir)
        rounds.append((time.perf_counter() - start, time.process_time() - work))
    shown = ", ".join(f"{clock:.1f} ({cpu:.1f} CPU)" for clock, cpu in rounds)
    print(f"load: best {min(rounds)[0]:.1f} s; rounds {shown}")
    print(
        f"{model.info['size']}, {model.info['parameters'] / 1e6:.1f} M parameters, {', '.join(model.modalities)}"
    )


if __name__ == "__main__":
    main()
