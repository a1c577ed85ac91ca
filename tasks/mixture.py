"""Options of a pretraining mixture, and the file that lists its sources."""

from __future__ import annotations

import argparse
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.batching.mixture import MODES
from unival.core import options as cli_options
from unival.core.yaml_files import read_yaml
from unival.errors import ConfigError, nearest

KEYS = ("name", "table", "task", "modality", "weight", "group", "selected_cols", "options", "split")
# The reference's extra streams, each read once every <cnt> rows of the main one.
STREAMS = (
    "image_text", "image_text_vqa", "image_text_ground", "video", "video_text", "audio", "audio_text"
)  # fmt: skip

_ONE_MODALITY = "list only those tables in a mixture; networks that no source needs are not built"
# Options of the reference's mixture that had no effect, or that a list of sources says better.
REFUSED = {
    "only_video_data": _ONE_MODALITY,
    "only_audio_data": _ONE_MODALITY,
    "audio_with_video": "list a video and an audio source, with one 'group' where they are to share a sub-batch",
    "init_text_data": "add a source with 'task: infilling' to a mixture",
    "init_image_text_data": "pretrain in two runs, the second with --finetune-from-model",
    "init_dataset_epoch": "pretrain in two runs with --max-epoch, the second with --finetune-from-model",
    "other_data_cnt": "give the sources of a mixture a 'weight', or --image-text-cnt and its kin",
    "pretrain_seed": "all random choices of the data follow --seed",
    "unconstrained_training": "leave the answer list (--ans2label-file) out: nothing is constrained without it",
}


def _stream(text: str) -> Any:
    return field(default=None, metadata={"help": text})


def _count(stream: str) -> Any:
    return field(default=2, metadata={"help": f"main rows per row of --{stream}-data"})


@dataclass(frozen=True)
class MixtureOptions:
    """Options of the mixture. A recipe's ``mixture`` section is written to a YAML file given as ``data``."""

    mixing: str = field(
        default="balanced",
        metadata={"help": "balanced (fixed quotas in each update) or proportional (to size)"},
    )
    steps_per_epoch: int | None = field(
        default=None,
        metadata={"help": "batches of all ranks in an epoch (default: one pass of the first source)"},
    )
    build_unused_encoders: bool = field(
        default=False, metadata={"help": "also build the named modality networks that no source needs"}
    )
    image_text_data: str | None = _stream("further image table, read every --image-text-cnt rows")
    image_text_cnt: int = _count("image-text")
    image_text_vqa_data: str | None = _stream("image question table")
    image_text_vqa_cnt: int = _count("image-text-vqa")
    image_text_ground_data: str | None = _stream("image grounding table")
    image_text_ground_cnt: int = _count("image-text-ground")
    video_data: str | None = _stream("video table")
    video_cnt: int = _count("video")
    video_selected_cols: str | None = field(default=None, metadata={"help": "columns of --video-data"})
    video_text_data: str | None = _stream("further video table")
    video_text_cnt: int = _count("video-text")
    audio_data: str | None = _stream("audio table")
    audio_cnt: int = _count("audio")
    audio_selected_cols: str | None = field(default=None, metadata={"help": "columns of --audio-data"})
    audio_text_data: str | None = _stream("further audio table")
    audio_text_cnt: int = _count("audio-text")

    def __post_init__(self) -> None:
        if self.mixing not in MODES:
            raise ConfigError(
                f"--mixing '{self.mixing}' is not one of {', '.join(MODES)}.{nearest(self.mixing, MODES)}"
            )
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise ConfigError(f"--steps-per-epoch {self.steps_per_epoch} must be at least 1")
        for stream in STREAMS:
            if getattr(self, f"{stream}_cnt") < 1:
                raise ConfigError(f"--{stream.replace('_', '-')}-cnt must be at least 1")


def add_arguments(parser: Any) -> None:
    """Add the mixture's options, and those of the reference that are refused when given."""
    cli_options.add_arguments(parser, MixtureOptions)
    for name in REFUSED:
        parser.add_argument(
            "--" + name.replace("_", "-"), nargs="?", const=True, default=None, help=argparse.SUPPRESS
        )


def from_arguments(args: Namespace) -> MixtureOptions:
    """Read the options.

    Raises:
        ConfigError: a value out of range, or an option of the reference that did nothing.
    """
    for name, instead in REFUSED.items():
        if getattr(args, name, None) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is no option here: {instead}")
    return cli_options.from_namespace(args, MixtureOptions)


def read_mixture(path: Path) -> list[dict[str, Any]] | None:
    """Return the sources of a mixture file; None when the file describes a single table.

    Raises:
        ConfigError: an absent file, an unknown key (nearest name offered), a value that cannot be meant.
    """
    if not path.is_file():
        raise ConfigError(f"mixture '{path}' does not exist")
    content = read_yaml(path)
    if isinstance(content, dict) and "mixture" in content:
        content = content["mixture"]
    if not isinstance(content, list):
        return None
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or "table" not in entry:
            raise ConfigError(f"{path}: source {number} needs a 'table'")
        for key in entry:
            if key not in KEYS:
                raise ConfigError(f"{path}: source {number}: unknown key '{key}'.{nearest(key, KEYS)}")
        if entry.get("split", "train") not in ("train", "valid"):
            raise ConfigError(f"{path}: source {number}: split '{entry['split']}' is neither train nor valid")
        entry.setdefault("name", f"source{number}")
        if float(entry.get("weight", 1.0)) <= 0:
            raise ConfigError(f"{path}: source '{entry['name']}': weight {entry['weight']} must be above 0")
    names = [entry["name"] for entry in content]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: two sources have the same name: {', '.join(sorted(names))}")
    return content
