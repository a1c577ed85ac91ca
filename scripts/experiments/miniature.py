#!/usr/bin/env python3
"""Miniature experiments on the sample world: curriculum, task balancing, transfer to sound (paper, Tables 2, 3, 12).

    python scripts/experiments/miniature.py run               # every run that has not ended yet, three seeds each
    python scripts/experiments/miniature.py tables            # what came out, as Markdown

UNIVAL_DATA holds the world of the quickstart (docs/results.md has the command), results go below
UNIVAL_OUT/experiments. A run that was stopped begins anew; finished ones are kept. Each run is a process of its own,
forked after the imports; ``--jobs`` of them side by side, a core each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from unival.core.children import become
from unival.core.paths import root

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPES = CHECKOUT / "configs" / "experiments"
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Run:
    """One training: recipe, the run that it starts from, options beside the recipe's."""

    name: str
    recipe: str
    start: str | None = None
    options: tuple[str, ...] = ()


PRETRAINED = (
    Run("images", "images"),
    Run("images_videos", "images_videos", start="images"),
    Run("one_stage", "one_stage"),
    Run("text", "text"),
)
FINETUNED = tuple(
    Run(f"{start}-{task}", f"finetune_{task}", start=start)
    for task, starts in {
        "caption": ("one_stage", "images_videos"),
        "video_caption": ("one_stage", "images_videos"),
        "audio_caption": ("text", "images", "images_videos"),
    }.items()
    for start in starts
)
MIXED = (Run("balanced", "balanced"), Run("proportional", "proportional"))
# What a start of the program costs, to be taken off the processor time of a run.
EMPTY = (
    Run("images-empty", "images", options=("--max-update=1", "--log-interval=1")),
    Run("one_stage-empty", "one_stage", options=("--max-update=1", "--log-interval=1")),
)
RUNS = (*PRETRAINED, *FINETUNED, *MIXED)


def folder(name: str, seed: int) -> Path:
    return root("UNIVAL_OUT") / "experiments" / f"{name}-{seed}"


def done(run: Run, seed: int) -> bool:
    return (folder(run.name, seed) / "run.json").is_file()


def begin(run: Run, seed: int) -> int:
    """Start a training in a process of its own and return the process id."""
    target = folder(run.name, seed)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    words = [
        "train",
        str(RECIPES / f"{run.recipe}.yaml"),
        f"--save-dir={target}",
        f"--seed={seed}",
        *run.options,
    ]
    if run.start:
        words.append(f"--finetune-from-model={folder(run.start, seed) / 'checkpoint_last.pt'}")
    from unival.cli import main as program

    print(f"{run.name}, seed {seed}", flush=True)
    child = os.fork()
    if child == 0:
        become(lambda: program(words), target / "log.txt")
    return child


def finish(run: Run, seed: int, status: int, seconds: float, gigabytes: float) -> None:
    """Leave ``run.json`` with processor seconds, peak memory and scores.

    Raises SystemExit when the training failed.
    """
    target = folder(run.name, seed)
    if status:
        sys.exit(f"{run.name}, seed {seed}, ended with status {status}: see {target / 'log.txt'}")
    result = {"seconds": seconds, "gigabytes": gigabytes, **ended(target)}
    (target / "run.json").write_text(json.dumps(result, indent=1) + "\n")
    for file in target.glob("checkpoint_best*.pt"):
        file.unlink()


def train(todo: list[tuple[Run, int]], jobs: int) -> None:
    """Train what has not ended yet, never more than ``jobs`` at once, a run after the one that it starts from."""
    waiting = [(run, seed) for run, seed in todo if not done(run, seed)]
    wanted = {(run.name, seed) for run, seed in waiting}
    running: dict[int, tuple[Run, int]] = {}
    while waiting or running:
        for run, seed in list(waiting):
            if len(running) < jobs and (run.start, seed) not in wanted:
                running[begin(run, seed)] = (run, seed)
                waiting.remove((run, seed))
        child, status, used = os.wait4(-1, 0)
        if child not in running:
            continue
        run, seed = running.pop(child)
        if status:
            for other in running:
                os.kill(other, signal.SIGTERM)
        finish(run, seed, status, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)
        wanted.discard((run.name, seed))


def ended(target: Path) -> dict[str, object]:
    """Updates done and the last scores of a run."""
    records = [json.loads(line) for line in (target / "train_log.jsonl").read_text().splitlines()]
    scores = [r for r in records if r["split"] == "valid"]
    names = ("update", "split")
    return {
        "updates": max((r["update"] for r in records), default=0),
        "scores": {k: v for k, v in scores[-1].items() if k not in names} if scores else {},
    }


def results(name: str) -> list[dict]:
    paths = [folder(name, seed) / "run.json" for seed in SEEDS]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def cell(values: list[float], digits: int = 3) -> str:
    """Mean and standard deviation over the seeds."""
    if not values:
        return "-"
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}" + (
        "" if len(values) == len(SEEDS) else f" ({len(values)} seeds)"
    )


def score(name: str, metric: str) -> str:
    return cell([run["scores"][metric] for run in results(name)])


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def seconds_per_epoch(name: str, empty: str, epoch: int = 100) -> str:
    """Processor seconds of an epoch of ``epoch`` updates, the program's start taken off."""
    starts = [run["seconds"] for run in results(empty)]
    if not starts:
        return "-"
    return cell([(r["seconds"] - mean(starts)) / (r["updates"] - 1) * epoch for r in results(name)], 1)


def tables() -> str:
    """All tables as Markdown."""
    curriculum = table(
        [
            "pretraining",
            "image captions, CIDEr",
            "video captions, CIDEr",
            "CPU seconds / 100 updates",
            "peak memory, GB",
        ],
        [
            [
                "one stage",
                score("one_stage-caption", "cider"),
                score("one_stage-video_caption", "cider"),
                seconds_per_epoch("one_stage", "one_stage-empty"),
                cell([run["gigabytes"] for run in results("one_stage")], 2),
            ],
            [
                "curriculum: images",
                "",
                "",
                seconds_per_epoch("images", "images-empty"),
                cell([run["gigabytes"] for run in results("images")], 2),
            ],
            [
                "curriculum: then images and videos",
                score("images_videos-caption", "cider"),
                score("images_videos-video_caption", "cider"),
                seconds_per_epoch("images_videos", "one_stage-empty"),
                cell([run["gigabytes"] for run in results("images_videos")], 2),
            ],
        ],
    )
    balance = table(
        ["mixing", "questions (large source), accuracy", "captions (small source), CIDEr", "captions, exact"],
        [
            [name, score(name, "vqa_vqa_score"), score(name, "caption_cider"), score(name, "caption_exact")]
            for name in ("balanced", "proportional")
        ],
    )
    starts = {"text": "text", "images": "images", "images_videos": "images and videos"}
    transfer = table(
        ["pretrained on", "audio captions, CIDEr", "exact", "loss"],
        [
            [what, *(score(f"{name}-audio_caption", metric) for metric in ("cider", "exact", "loss"))]
            for name, what in starts.items()
        ],
    )
    return "\n\n".join((curriculum, balance, transfer))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, one core each")
    parser.add_argument("--only", nargs="+", help="names of runs (what they start from is not added)")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1 training at a time")
    if args.what == "tables":
        print(tables())
        return
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking for a GPU must not start CUDA before the forks
    import torch

    import unival.plugin  # noqa: F401  (imports the engine before the forks)

    torch.set_num_threads(1)  # a pool of threads would be lost in a fork; and the figures are per core
    todo = [
        (run, seed)
        for seed in args.seeds
        for run in (*RUNS, *(EMPTY if seed == SEEDS[0] else ()))
        if args.only is None or run.name in args.only
    ]
    train(todo, args.jobs)


if __name__ == "__main__":
    main()
