"""What is installed, what it is good for, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import unival
from unival import __version__
from unival.core.device import gains_from_bfloat16
from unival.core.installation import install_extra, installer
from unival.core.paths import root
from unival.metrics.java import JavaSettings, unavailable


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``remedy``: what to type when it is not ``good``; ``needed``: the core lacks it."""

    name: str
    said: str
    good: bool = True
    remedy: str = ""
    needed: bool = False


# distribution -> what it serves; the first group is the core, the others are extras of setup.py
CORE = {
    "torch": "tensors",
    "torchvision": "image transforms",
    "timm": "image networks",
    "av": "video",
    "soundfile": "audio",
    "librosa": "mel filters",
    "soxr": "resampling",
    "tokenizers": "vocabularies",
    "safetensors": "weights",
    "numpy": "arrays",
    "scipy": "search of merging coefficients",
    "Pillow": "images",
    "PyYAML": "recipes",
}
EXTRAS = {
    "train": {"fairseq-fixed": "training", "tensorboard": "training curves", "matplotlib": "plots"},
    "parquet": {"pyarrow": "Parquet and Arrow tables"},
    "wandb": {"wandb": "curves in Weights & Biases"},
    "java-metrics": {"pycocoevalcap": "METEOR, the official tokeniser"},
    "imagegen": {"open_clip_torch": "CLIP similarity", "torch-fidelity": "FID and Inception Score"},
    "demo": {"gradio": "web page", "fastapi": "server", "uvicorn": "server"},
}


def examine() -> Iterator[Finding]:
    """Yield what was found: program, packages, backends, programs, folders."""
    yield Finding("unival", f"{__version__} in {os.path.dirname(os.path.abspath(unival.__file__))}")
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name, use in CORE.items():
        yield _package(name, use, f"{installer()} {name}", needed=True)
    for extra, packages in EXTRAS.items():
        for name, use in packages.items():
            yield _package(name, f"{use} (extra '{extra}')", install_extra(extra))
    yield from _backends()
    java = shutil.which("java")
    yield Finding(
        "Java",
        java or "not found: METEOR and SPICE cannot be computed",
        java is not None,
        "install a Java runtime",
    )
    for name in ("meteor", "spice"):
        lacking = unavailable(name, JavaSettings())
        yield Finding(name.upper(), lacking or "its jars are there", lacking is None)
    for variable in ("UNIVAL_DATA", "UNIVAL_OUT", "UNIVAL_WEIGHTS"):
        folder = root(variable)
        there = folder.is_dir()
        free = f", {shutil.disk_usage(folder).free / 2**30:,.0f} GiB free" if there else " (not there yet)"
        yield Finding(variable, f"{folder}{free}")


def _package(name: str, use: str, remedy: str, needed: bool = False) -> Finding:
    try:
        return Finding(name, f"{importlib.metadata.version(name)}: {use}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"not installed: {use}", False, remedy, needed)


def _backends() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return
    yield Finding("threads", f"{torch.get_num_threads()} for computing, {os.cpu_count()} processors")
    half = (
        "faster here than float32: recipes with 'precision: auto' train in it"
        if gains_from_bfloat16()
        else "no faster here than float32, in which recipes with 'precision: auto' train"
    )
    yield Finding("bfloat16", half)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            half = "bfloat16" if torch.cuda.is_bf16_supported() else "float16 only"
            yield Finding(f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {half}")
        nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
        yield Finding("NCCL", "several GPUs" if nccl else "absent: one GPU only", nccl)
    else:
        built = torch.version.cuda or "no CUDA"
        yield Finding("GPU", f"none visible; everything runs on the CPU (torch is built for {built})")
    gloo = torch.distributed.is_available() and torch.distributed.is_gloo_available()
    yield Finding("gloo", "several processes on CPUs" if gloo else "absent: one process only", gloo)
    bits = sys.maxsize.bit_length() + 1
    if bits < 64:
        yield Finding(
            "pointer size", f"{bits} bits: large tables cannot be mapped", False, "use a 64-bit Python"
        )
