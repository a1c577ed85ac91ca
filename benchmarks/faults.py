"""Run the small inputs that once failed, case by case, and print what becomes of each.

    python benchmarks/faults.py ../shared/faults                  # with a world and a random model made for it
    python benchmarks/faults.py FOLDER --only webdataset --checkpoint CHECKPOINT --world WORLD
    python benchmarks/faults.py FOLDER --trainings                # also the cases that train

A case is right when its commands end in a result or in one line, and say what they should. Exit code 1 when one is not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unival.core.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = Path(__file__).with_suffix(".yaml")
LIMIT = 300  # seconds for one command


@dataclass(frozen=True)
class Step:
    """One command line of a case. ``code``: expected exit codes; ``says``: what its output must match, ``lacks``: must
    not. ``needs``: "trainings" or "mounts" (root)."""

    words: str
    code: tuple[int, ...] = (0,)
    says: str = ""
    lacks: str = "Traceback"
    needs: str = ""
    within: float = LIMIT


def steps_of(entries: list[dict[str, Any]]) -> list[Step]:
    """Return the steps of one case of faults.yaml."""
    return [Step(entry["run"], tuple(entry.get("code", (0,))), **_rest(entry)) for entry in entries]


def _rest(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("run", "code")}


def fuzzed(folder: Path) -> Iterator[tuple[str, list[Step]]]:
    """Yield the inputs found by mutation: each must end in one line."""
    for case in sorted(folder.iterdir()):
        kind = case.name.partition("_")[0]
        if kind == "recipes":
            yield case.name, [Step("sed -i s#DIR/main#ROOT# r.yaml && unival train r.yaml --dry-run", (0, 2))]
        elif kind == "merge":
            yield (
                case.name,
                [Step("sed -i s#DIR/ck/folder#CHECKPOINT# m.yaml && unival merge m.yaml", (0, 2))],
            )
        elif kind == "config":
            words = "mkdir ck && cp -r CHECKPOINT/. ck && cp config.json ck && unival predict ck PHOTO --out p.jsonl"
            yield case.name, [Step(words, (0, 2))]
        elif kind == "score":
            task, words = json.loads((case / "args.txt").read_text())
            yield case.name, [Step(f"unival score p.json* q.json --task {task} {' '.join(words)}", (0, 2))]


def prepare(folder: Path, world: Path | None, checkpoint: Path | None) -> dict[str, str]:
    """Return what stands for CHECKPOINT, TABLE, WORLD, PHOTOS, PHOTO and ROOT; what is not given is made."""
    import torch

    from unival import build_model
    from unival.checkpoint import save_folder
    from unival.vocabulary import Vocabulary

    if world is None:
        world = folder / "world"
        words = ["data", "sample", str(world), "--images", "60", "--clips", "8", "--sounds", "8"]
        subprocess.run(
            [sys.executable, "-m", "unival", *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
        )
    table = next(iter(sorted(world.glob("tables/caption_test*")) or sorted(world.rglob("caption*test*"))))
    if checkpoint is None:
        vocabulary = Vocabulary.load(next(world.rglob("dict.txt")).parent)
        torch.manual_seed(0)
        model = build_model("unival_tiny", len(vocabulary), resnet_type="resnet18")
        extra = {
            "task": {"name": "caption", "modality": "image"},
            "task_options": {"patch_image_size": 64, "max_image_size": 128},
            "decoding": {"settings": {"beam": 2, "max_len_b": 6}},
        }
        checkpoint = save_folder(folder / "checkpoint", model, vocabulary, extra=extra)
    photos = folder / "photos"
    photos.mkdir()
    pictures = sorted(path for path in world.rglob("*") if path.suffix in (".jpg", ".png"))[:6]
    for picture in pictures:
        shutil.copy(picture, photos)
    rows = "".join(f"{picture.name},a picture\n" for picture in pictures)
    (photos / "captions.csv").write_text("image,caption\n" + rows)
    named = {"CHECKPOINT": checkpoint, "TABLE": table, "WORLD": world, "PHOTOS": photos, "ROOT": ROOT}
    return {"PHOTO": str(photos / pictures[0].name), **{name: str(path) for name, path in named.items()}}


def run(step: Step, place: Path, names: dict[str, str]) -> str | None:
    """Run one command; returns what is wrong, None when it is as it should be."""
    words = re.sub(
        r"\b(CHECKPOINT|TABLE|WORLD|PHOTOS|PHOTO|ROOT)\b", lambda match: names[match[1]], step.words
    )
    started = time.monotonic()
    environment = {**os.environ, "PATH": f"{place.parent}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            ["bash", "-c", words],
            cwd=place,
            env=environment,
            capture_output=True,
            timeout=step.within * 2,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not ended after {step.within * 2:.0f} s"
    said = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    last = said.strip().splitlines()[-1][:160] if said.strip() else "nothing said"
    if done.returncode not in step.code:
        return f"exit code {done.returncode}: {last}"
    if step.lacks and (found := re.search(step.lacks, said)):
        return f"says '{found[0]}': {last}"
    if step.says and not re.search(step.says, said, re.DOTALL):
        return f"does not say /{step.says}/: {last}"
    took = time.monotonic() - started
    return f"took {took:.0f} s, the limit is {step.within:.0f}" if took > step.within else None


def skipped(step: Step, trainings: bool) -> str | None:
    """Return why a command is not run here."""
    if step.needs == "trainings" and not trainings:
        return "trains (--trainings)"
    if (
        step.needs == "mounts"
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode
    ):
        return "needs root to mount"
    return None


def main(say: Callable[[str], None] = print) -> int:
    """Run the cases; returns 1 when one is not right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="folder of the cases")
    parser.add_argument("--checkpoint", type=Path, help="captioning checkpoint (default: a random tiny one)")
    parser.add_argument("--world", type=Path, help="a rendered sample world (default: a small one)")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--trainings", action="store_true", help="also what trains (minutes)")
    args = parser.parse_args()
    if not args.folder.is_dir():
        say(f"{args.folder}: no folder of cases; nothing to run")
        return 0
    listed = {name: steps_of(entries) for name, entries in read_yaml(COMMANDS).items()}
    cases = {**listed, **{f"fuzz/{name}": steps for name, steps in fuzzed(args.folder / "fuzz")}}
    wrong = count = 0
    with tempfile.TemporaryDirectory(prefix="unival-faults-") as scratch:
        binaries = Path(scratch) / "bin"
        binaries.mkdir()
        for name, words in (
            ("unival", f'exec "{sys.executable}" -m unival "$@"'),
            ("python", f'exec "{sys.executable}" "$@"'),
        ):
            (binaries / name).write_text(f"#!/bin/sh\n{words}\n")
            (binaries / name).chmod(0o755)
        names = prepare(Path(scratch), args.world, args.checkpoint)
        for name, steps in cases.items():
            if args.only not in name:
                continue
            if not (args.folder / name).is_dir():
                say(f"{name:32} skipped: not in {args.folder}")
                continue
            place = Path(scratch) / name.replace("/", "_")
            shutil.copytree(args.folder / name, place)
            for path in (place, *place.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            for number, step in enumerate(steps, 1):
                count += 1
                reason = skipped(step, args.trainings)
                outcome = f"skipped: {reason}" if reason else run(step, place, names) or "right"
                wrong += outcome != "right" and not reason
                say(f"{f'{name} {number}' if len(steps) > 1 else name:32} {outcome}")
    say(f"{count - wrong} of {count} as they should be (or skipped)")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
