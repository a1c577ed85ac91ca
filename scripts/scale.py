"""Predict time and GPU hours of pretraining on several GPUs from what was measured on one.

Usage: python scripts/scale.py [--price PER_GPU_HOUR] [--cores CORES_PER_GPU] [--gpus 8 16 32 64 128]
Prints the table of docs/scale.md, which explains every symbol and says what is assumed. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

# measured on one H200 (docs/performance.md, "One GPU"): examples a second in passes of 128, and the share a run keeps
RATE = {"image": 622.0, "video": 205.0}
PASS = 128
KEPT = 0.86
FLOOR = 0.1146  # seconds of a pass of 32 pictures, measured on an H100: smaller passes are bound by the host
# items a second and worker: pictures in a real training (docs/performance.md), small clips by a script that is not kept
LOADED = {"image": 56.0, "video": 42.0}
CORES = 14  # data workers beside one GPU in the run that KEPT is from
GRADIENT_BYTES = 2  # bf16 gradients
# bytes a second of a ring over a machine's eight GPUs, and between machines: assumed, not measured
WITHIN, BETWEEN, MACHINE = 300e9, 40e9, 8
GPUS = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Stage:
    """One stage: its updates, examples of an update by modality, trained parameters."""

    name: str
    updates: int
    examples: dict[str, int]
    parameters: int


# paper, section 4, as in configs/pretrain; parameters: the test counts them in the models of these recipes
STAGES = (
    Stage("1", 150_000, {"image": 3200}, 197_989_704),
    Stage("2", 90_000, {"image": 2000, "video": 2000}, 248_440_072),
)


@dataclass(frozen=True)
class Update:
    """Seconds of one update on every GPU, by what is waited for."""

    compute: float
    reduce: float
    load: float
    host: bool

    @property
    def seconds(self) -> float:
        """The loader works beside the GPU; gradients are summed when the backward pass is over."""
        return max(self.compute + self.reduce, self.load)

    @property
    def bound(self) -> str:
        """What most of an update is spent on."""
        if self.load > self.compute + self.reduce:
            return "loader"
        if self.reduce > self.compute:
            return "all-reduce"
        return "host" if self.host else "compute"


def update(stage: Stage, gpus: int, cores: float = CORES) -> Update:
    """Return the seconds of an update of ``stage`` on ``gpus`` GPUs with ``cores`` data workers each."""
    compute = load = held = 0.0
    for kind, count in stage.examples.items():
        share = count / gpus
        busy, least = share / RATE[kind] / KEPT, math.ceil(share / PASS) * FLOOR / KEPT
        compute += max(busy, least)
        held += least if least > busy else 0.0
        load += share / (cores * LOADED[kind])
    speed = WITHIN if gpus <= MACHINE else BETWEEN
    # the limit of a ring: 2 (gpus - 1) / gpus times the bytes
    return Update(compute, 2 * stage.parameters * GRADIENT_BYTES / speed, load, 2 * held > compute)


def hours(stage: Stage, gpus: int, cores: float = CORES) -> float:
    """Return the hours of a stage."""
    return stage.updates * update(stage, gpus, cores).seconds / 3600


def cores_needed(stage: Stage, gpus: int) -> float:
    """Return the data workers a GPU needs so that it never waits."""
    one = update(stage, gpus, 1.0)
    return one.load / (one.compute + one.reduce)


def table(gpus: tuple[int, ...] = GPUS, cores: float = CORES, price: float | None = None) -> str:
    """Return the table in Markdown; with a price of a GPU hour it has a column for the money."""
    titles = [
        "stage",
        "GPUs",
        "compute, s",
        "all-reduce, s",
        "loader, s",
        "hours",
        "GPU hours",
        "bound by",
        "cores needed",
    ]
    lines = [titles + ["money"] * (price is not None), ["---"] * (len(titles) + (price is not None))]
    for stage in STAGES:
        for count in gpus:
            step, time = update(stage, count, cores), hours(stage, count, cores)
            line = [stage.name, str(count), *(f"{s:.3f}" for s in (step.compute, step.reduce, step.load))]
            line += [f"{time:.1f}", f"{time * count:.0f}", step.bound, f"{cores_needed(stage, count):.1f}"]
            lines.append(line + ([f"{time * count * price:.0f}"] if price is not None else []))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPUS))
    parser.add_argument("--cores", type=float, default=CORES, help="data workers beside each GPU")
    parser.add_argument("--price", type=float, help="of a GPU hour, in any currency")
    args = parser.parse_args()
    if min(args.gpus) < 1 or args.cores <= 0:
        parser.error(
            f"--gpus {min(args.gpus)} and --cores {args.cores:g}: give at least 1 GPU and more than 0 cores"
        )
    print(table(tuple(args.gpus), args.cores, args.price))


if __name__ == "__main__":
    main()
