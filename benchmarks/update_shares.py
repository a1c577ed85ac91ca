"""What a training's updates spend their processor time on: model, loss, optimizer, data, engine, log.

    python benchmarks/update_shares.py RECIPE [--updates 60] [-- OPTIONS of unival train]

A real training of the recipe in this process, with clocks around the parts that the engine calls; the first ten updates
are not counted, validation and checkpoints are left out. Seconds are the processor's, of this process with its threads:
data workers are processes of their own, so "data" is what taking a batch from them costs here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

WARM = 10


class Shares:
    """Processor seconds by part, each without the parts that run inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]
        self.whole: dict[str, float] = {}  # those of complete updates
        self.updates, self.begun, self.ended = 0, 0.0, 0.0

    def timed(self, owner: Any, name: str, part: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def run(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            self.inner.append(0.0)
            try:
                return plain(*arguments, **options)
            finally:
                taken = time.process_time() - start
                own = taken - self.inner.pop()
                self.inner[-1] += taken
                if self.updates > WARM:
                    self.seconds[part] += own

        setattr(owner, name, run)

    def count(self, *_: Any) -> None:
        """An update begins."""
        self.updates += 1
        self.whole, self.ended = dict(self.seconds), time.process_time()
        if self.updates == WARM + 1:
            self.begun = self.ended


def watch(shares: Shares) -> None:
    from fairseq.data import iterators

    import unival.plugin  # noqa: F401
    from unival.criterions.label_smoothed import LabelSmoothedCrossEntropy
    from unival.models.unival import UnivalModel
    from unival.tasks.optimizer import FairseqAdam
    from unival.tasks.trainer import UnivalTrainer

    shares.timed(UnivalModel, "forward", "model, forward")
    shares.timed(LabelSmoothedCrossEntropy, "forward", "loss")
    shares.timed(torch.Tensor, "backward", "model and loss, backward")
    for name in ("step", "clip_grad_norm", "zero_grad", "multiply_grads"):
        shares.timed(FairseqAdam, name, "optimizer")
    shares.timed(UnivalTrainer, "_prepare_sample", "data")
    shares.timed(iterators.GroupedIterator, "__next__", "data")
    shares.timed(UnivalTrainer, "train_step", "engine")
    plain = UnivalTrainer.train_step

    def train_step(*arguments: Any, **options: Any) -> Any:
        shares.count()
        return plain(*arguments, **options)

    UnivalTrainer.train_step = train_step


def main() -> int:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--updates", type=int, default=60)
    args = parser.parse_args(words[:cut])
    from unival.cli import main as unival

    shares = Shares()
    watch(shares)
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"--save-dir={folder}",
            f"--max-update={args.updates}",
            "--disable-validation",
            "--no-save",
        ]
        status = unival(["train", args.recipe, *options, *words[cut + 1 :]])
    counted = shares.updates - 1 - WARM
    total = shares.ended - shares.begun
    shares.whole["between updates: progress, log"] = total - sum(shares.whole.values())
    print("| part | ms an update | share |\n|---|---|---|")
    for part, seconds in shares.whole.items():
        print(f"| {part} | {seconds / counted * 1e3:.1f} | {seconds / total:.1%} |")
    print(f"| all | {total / counted * 1e3:.1f} | |")
    return status


if __name__ == "__main__":
    sys.exit(main())
