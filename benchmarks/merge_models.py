"""Measure merging: peak memory against one model's size, time against reading the inputs and writing the result.

python benchmarks/merge_models.py --models 4 --methods average ties
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEASURED = """
import re, sys, time
from unival.merge import MergeRecipe, merge
out, method, base, *paths = sys.argv[1:]
options = {"base": base, "density": 0.2} if method in ("ties",) else {"base": base} if method == "model_stock" else {}
def peak():  # of this program alone: the kernel's other figure counts the parent before exec
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1e3
before = peak()
started = time.perf_counter()
models = tuple({"path": path, "name": str(k)} for k, path in enumerate(paths))
merge(MergeRecipe(out, models, method, "raw", **options))
print(time.perf_counter() - started, peak(), before)
"""


def make_inputs(folder: Path, count: int, arch: str, kind: str) -> list[Path]:
    """Write random models that share an ancestor; the first is the ancestor."""
    import torch

    from unival import build_model
    from unival.checkpoint import save_folder
    from unival.vocabulary import Vocabulary

    vocabulary = Vocabulary.train(["a red circle"] * 4, 50_000, num_codes=8192, num_bins=1000)
    model = build_model(arch, len(vocabulary), video_encoder_name="all_resnext101")
    paths = []
    for k in range(count + 1):
        torch.manual_seed(k)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.001)
        path = folder / f"model{k}"
        if kind == "folder":
            save_folder(path, model, vocabulary, extra={"lineage": ["ancestor"]})
        else:
            path = path.with_suffix(".pt")
            args = argparse.Namespace(**{"arch": arch, **model.config.options()})
            state = {"unival": {"vocabulary": vocabulary.to_dict(), "lineage": ["ancestor"]}}
            torch.save({"model": model.state_dict(), "cfg": {"model": args}, "task_state": state}, path)
        paths.append(path)
    return paths


def weights_file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


def forget(paths: list[Path]) -> None:
    """Drop files from the page cache, so that every measurement reads the disk."""
    for path in paths:
        with open(weights_file(path), "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def floor(paths: list[Path], out: Path) -> float:
    """Seconds to read all inputs and to write and sync one model's bytes."""
    forget(paths)
    started = time.perf_counter()
    block, copied = bytearray(1 << 22), weights_file(paths[0]).stat().st_size
    with open(out, "wb") as target:
        for path in paths:
            with open(weights_file(path), "rb", buffering=0) as file:
                while count := file.readinto(block):
                    if copied > 0:
                        target.write(memoryview(block)[: min(count, copied)])
                        copied -= count
        target.flush()
        os.fsync(target.fileno())
    seconds = time.perf_counter() - started
    out.unlink()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--methods", nargs="+", default=["average", "ties"])
    parser.add_argument("--arch", default="unival_base")
    parser.add_argument("--kind", choices=("folder", "pt"), default="folder")
    parser.add_argument("--folder", help="where to put the temporary files (default: the system's)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        root = Path(scratch)
        base, *paths = make_inputs(root, max(args.models), args.arch, args.kind)
        size = weights_file(base).stat().st_size / 1e6
        print(f"one model {size:.0f} MB ({args.kind}), {args.arch} with image and video networks")
        print(
            "method       models   seconds   floor   ratio   MB/s read   peak MB   of one model   before MB"
        )
        for method in args.methods:
            for count in args.models:
                used = paths[:count] + ([base] if method != "average" else [])
                least = floor(used, root / "floor")
                forget(used)
                command = [sys.executable, "-c", MEASURED, str(root / "out"), method, str(base)]
                done = subprocess.run(
                    [*command, *map(str, paths[:count])], check=True, capture_output=True, text=True
                )
                seconds, peak, before = map(float, done.stdout.split())
                print(
                    f"{method:<12} {count:6d} {seconds:9.1f} {least:7.1f} {seconds / least:7.2f}"
                    f" {size * len(used) / seconds:11.0f} {peak:9.0f} {peak / size:14.2f} {before:11.0f}"
                )


if __name__ == "__main__":
    main()
