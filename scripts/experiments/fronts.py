"""The figure of fronts in docs/merging.md: ``python scripts/experiments/fronts.py out/tiny/merge --out FILE.png``.

For each pair of tasks of ``configs/tiny/merge_chain.yaml`` the sweeps of ``configs/tiny/merge_front.yaml`` below the
folder: thin one seed each, thick their mean, dotted the line between the two models.
"""

from __future__ import annotations

import argparse
import csv
from itertools import combinations
from pathlib import Path
from statistics import mean

TASKS = {
    "caption": "captions (CIDEr)",
    "vqa": "questions (accuracy)",
    "grounding": "boxes (Acc@0.5)",
    "entailment": "entailment (accuracy)",
}
Front = list[tuple[float, float]]


def front(folder: Path, first: str, second: str) -> dict[str, tuple[float, float]]:
    """Both scores of every point of a sweep."""
    with open(folder / "scores.csv", encoding="utf-8", newline="") as file:
        scores = {(row["point"], row["evaluation"]): float(row["score"]) for row in csv.DictReader(file)}
    points = dict.fromkeys(point for point, _ in scores)
    return {point: (scores[point, first], scores[point, second]) for point in points}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6.6))
    for (first, second), plot in zip(combinations(TASKS, 2), axes.flat, strict=True):
        fronts = [front(args.folder / f"front-{first}-{second}-{seed}", first, second) for seed in args.seeds]
        for one in fronts:
            plot.plot(*zip(*one.values(), strict=True), color="#8888aa", linewidth=0.8)
        middle = {
            point: (mean(one[point][0] for one in fronts), mean(one[point][1] for one in fronts))
            for point in fronts[0]
        }
        plot.plot(
            *zip(*middle.values(), strict=True), color="#2b5fa5", linewidth=2.2, marker="o", markersize=4
        )
        ends = [middle["l0"], middle["l1"]]
        plot.plot(*zip(*ends, strict=True), color="black", linestyle=":", linewidth=1)
        for point in ("l0.2", "l0.6"):
            text = f"lambda {point[1:]}"
            plot.annotate(text, middle[point], textcoords="offset points", xytext=(4, 5), fontsize=8)
        plot.set_xlabel(TASKS[first])
        plot.set_ylabel(TASKS[second])
        plot.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
