#!/usr/bin/env python3
"""Low-rank additions beside full finetuning, on captions of the sample world: score, memory, time, size.

    UNIVAL_DATA=userdata UNIVAL_OUT=out python scripts/experiments/lora.py

Starts from stage 2 of the quickstart (run_scripts/quickstart.sh), which must be there; results go below
UNIVAL_OUT/experiments/lora. A training that has ended is not made again. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from unival.core.paths import root

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPE = "configs/tiny/caption.yaml"
# The additions start at zero and learn at a higher rate; the image network stays as it is in all but the first.
MANNERS: dict[str, tuple[str, ...]] = {
    "everything": (),
    "transformer": ("--freeze-image-encoder",),
    "LoRA, attention": ("--lora", "--lora-rank=8", "--lr=5e-3"),
    "LoRA, attention and feed-forward": (
        "--lora",
        "--lora-rank=16",
        "--lora-alpha=32",
        "--lora-targets=attention,feed_forward",
        "--lr=5e-3",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What a manner gives: score on the test split, seconds and GB of training, MB of checkpoint and of what moved."""

    score: float
    seconds: float
    gigabytes: float
    checkpoint: float
    added: float

    @property
    def cells(self) -> list[str]:
        return [
            f"{self.score:.3f}",
            f"{self.seconds:.0f}",
            f"{self.gigabytes:.2f}",
            f"{self.checkpoint:.1f}",
            f"{self.added:.2f}",
        ]


def program(words: list[str], log: Path) -> tuple[float, float]:
    """Run ``unival`` with ``words``; return its processor seconds and its peak memory in GB.

    Raises SystemExit when it fails.
    """
    with open(log, "w") as out:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        child = subprocess.Popen(
            [sys.executable, "-m", "unival", *words], cwd=CHECKOUT, stdout=out, stderr=out, env=environment
        )
        _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"unival {words[0]} ended with status {status}: see {log}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def outcome(name: str, options: tuple[str, ...], seed: int) -> Outcome:
    world, tiny = root("UNIVAL_DATA") / "world", root("UNIVAL_OUT") / "tiny"
    folder = (
        root("UNIVAL_OUT") / "experiments" / "lora" / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "used.json"
    if not note.is_file():
        words = ["train", RECIPE, f"--save-dir={folder}", f"--seed={seed}", *options]
        note.write_text(json.dumps(program(words, folder / "train.txt")))
    seconds, gigabytes = json.loads(note.read_text())
    best = folder / "checkpoint_best.pt"
    table = str(world / "tables" / "caption_test.tsv")
    evaluation = folder / "evaluation"
    words = ["evaluate", str(best), table, f"--image-dir={world}", "--batch-size=64", f"--out={evaluation}"]
    program(words, folder / "evaluate.txt")
    base = str(tiny / "stage2" / "checkpoint_last.pt")
    program(
        ["convert", str(best), str(folder / "added"), "--to=added", f"--base={base}"], folder / "convert.txt"
    )
    score = json.loads((evaluation / "result.json").read_text())["metrics"]["cider"]
    weights = sum(path.stat().st_size for path in (folder / "added").glob("*.safetensors"))
    return Outcome(score, seconds, gigabytes, best.stat().st_size / 1e6, weights / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=tuple(MANNERS), default=list(MANNERS))
    args = parser.parse_args()
    head = ("trained", "CIDEr", "CPU seconds", "peak GB", "checkpoint MB", "what moved, MB")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for name in args.only:
        print(f"| {' | '.join((name, *outcome(name, MANNERS[name], args.seed).cells))} |", flush=True)


if __name__ == "__main__":
    main()
