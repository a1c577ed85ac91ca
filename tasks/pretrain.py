"""Pretraining on a mixture of tables, tasks and modalities (``unify_task``)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from fairseq.tasks import register_task

from unival import options as cli_options
from unival.data.dataset import DataSource, Item, SpecDataset
from unival.data.iterator import EpochBatches
from unival.errors import ConfigError, nearest
from unival.media import MediaLoader
from unival.mixture import MODES, Source, mixture_batches
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table
from unival.tasks.base import UnivalTask
from unival.vocabulary import Vocabulary

_KEYS = ("name", "table", "task", "modality", "weight", "group", "selected_cols", "options", "split")
# The reference's extra streams, each read once every <cnt> rows of the main one.
_STREAMS = (
    "image_text", "image_text_vqa", "image_text_ground", "video", "video_text", "audio", "audio_text"
)  # fmt: skip


def _stream(name: str, text: str) -> Any:
    return field(default=None, metadata={"help": text})


@dataclass(frozen=True)
class MixtureOptions:
    """Options of the mixture. A recipe's ``mixture`` section is written to a YAML file given as ``data``."""

    mixing: str = field(
        default="balanced", metadata={"help": "balanced (fixed quotas in each update) or proportional (to size)"}
    )
    steps_per_epoch: int | None = field(
        default=None, metadata={"help": "batches of all ranks in an epoch (default: one pass of the first source)"}
    )
    image_text_data: str | None = _stream("image_text", "further image table, read every --image-text-cnt rows")
    image_text_cnt: int = field(default=2, metadata={"help": "main rows per row of --image-text-data"})
    image_text_vqa_data: str | None = _stream("image_text_vqa", "image question table")
    image_text_vqa_cnt: int = field(default=2, metadata={"help": "main rows per row of --image-text-vqa-data"})
    image_text_ground_data: str | None = _stream("image_text_ground", "image grounding table")
    image_text_ground_cnt: int = field(default=2, metadata={"help": "main rows per row of --image-text-ground-data"})
    video_data: str | None = _stream("video", "video table")
    video_cnt: int = field(default=2, metadata={"help": "main rows per row of --video-data"})
    video_selected_cols: str | None = field(default=None, metadata={"help": "columns of --video-data"})
    video_text_data: str | None = _stream("video_text", "further video table")
    video_text_cnt: int = field(default=2, metadata={"help": "main rows per row of --video-text-data"})
    audio_data: str | None = _stream("audio", "audio table")
    audio_cnt: int = field(default=2, metadata={"help": "main rows per row of --audio-data"})
    audio_selected_cols: str | None = field(default=None, metadata={"help": "columns of --audio-data"})
    audio_text_data: str | None = _stream("audio_text", "further audio table")
    audio_text_cnt: int = field(default=2, metadata={"help": "main rows per row of --audio-text-data"})


@register_task("unify_task")
class UnifyTask(UnivalTask):
    """Multitask pretraining.

    ``data`` is a YAML list of sources (``name table task modality weight group options``), or a table
    in the reference's eight-column layout beside the reference's stream options. ``--batch-size``
    counts rows of the whole mixture; image and video rows of a batch form two sub-batches of equal
    weight in the loss.
    """

    spec_name = "pretrain"

    def __init__(self, args: Namespace, vocabulary: Vocabulary) -> None:
        super().__init__(args, vocabulary)
        self.mix = cli_options.from_namespace(args, MixtureOptions)
        if self.mix.mixing not in MODES:
            raise ConfigError(f"--mixing '{self.mix.mixing}' is not one of {', '.join(MODES)}.{nearest(self.mix.mixing, MODES)}")
        self.entries = self._entries()

    @classmethod
    def add_args(cls, parser: Any) -> None:
        super().add_args(parser)
        cli_options.add_arguments(parser, MixtureOptions)

    def has_sharded_data(self, split: str) -> bool:
        return False

    def _entries(self) -> list[dict[str, Any]]:
        paths = self._paths()
        if not paths:
            raise ConfigError("no data: give a mixture (YAML) or a pretraining table")
        if paths[0].endswith((".yaml", ".yml")) and (listed := _read_mixture(Path(paths[0]))) is not None:
            return listed
        entries: list[dict[str, Any]] = [{"name": "main", "table": paths[0], "selected_cols": self.cfg.selected_cols}]
        for stream in _STREAMS:
            table = getattr(self.mix, f"{stream}_data")
            if table:
                entries.append(
                    {
                        "name": stream,
                        "table": table,
                        "weight": 1.0 / getattr(self.mix, f"{stream}_cnt"),
                        "selected_cols": getattr(self.mix, f"{stream}_selected_cols", self.cfg.selected_cols),
                    }
                )
        return entries

    def sources(self, split: str, epoch: int) -> list[DataSource]:
        """Sources of ``train``, or those marked ``split: valid``."""
        training = split == self.args.train_subset
        chosen = [entry for entry in self.entries if (entry.get("split", "train") == "train") == training]
        if not chosen:
            raise ConfigError(
                "the mixture has no source for validation (split: valid); pretrain with --disable-validation"
                if not training
                else "the mixture has no source for training"
            )
        return [self._source(entry) for entry in chosen]

    def _source(self, entry: dict[str, Any]) -> DataSource:
        spec = get_spec(entry.get("task", "pretrain"), entry.get("modality", "image"))
        table = open_table(
            entry["table"], spec.fields, spec.layout_name, entry.get("selected_cols"), media_root=self.cfg.image_dir
        )
        options = self.options
        if entry.get("options"):
            options = SpecOptions.from_options(**{**vars_of(options), **entry["options"]})
        spec.prepare(table, options)
        media = MediaLoader(table.media_root, str(Path(table.path).parent))
        return DataSource(entry.get("name", table.path), table, spec, media, options, entry.get("group"))

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        training = split == self.args.train_subset
        self.datasets[split] = SpecDataset(
            self.sources(split, epoch), self.vocabulary, self.options.seed, training, split_groups=True
        )

    def schedule(self, dataset: SpecDataset, batch_size: int, epoch: int) -> Sequence[list[Item]]:
        """Quotas per source in training; one pass in table order otherwise."""
        names = [source.name for source in dataset.sources]
        if not dataset.training:
            return _one_pass(dataset, batch_size, epoch)
        weights = [float(entry.get("weight", 1.0)) for entry in self.entries if entry.get("split", "train") == "train"]
        sources = [
            Source(name, len(source.table), weight, source.group or "")
            for name, source, weight in zip(names, dataset.sources, weights, strict=True)
        ]
        world = max(1, self.args.distributed_world_size)
        picks = mixture_batches(
            sources,
            batch_size,
            self.options.seed,
            epoch,
            mode=self.mix.mixing,
            steps=self.mix.steps_per_epoch,
            num_ranks=world,
        )
        return EpochBatches(picks, epoch)


def _one_pass(dataset: SpecDataset, batch_size: int, epoch: int) -> list[list[Item]]:
    items = [(epoch, s, r) for s, size in enumerate(dataset.sizes) for r in range(int(size))]
    return [items[start : start + batch_size] for start in range(0, len(items), batch_size)]


def vars_of(options: SpecOptions) -> dict[str, Any]:
    """Fields of the options by name."""
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def _read_mixture(path: Path) -> list[dict[str, Any]] | None:
    """The sources of a mixture file; None when the file describes a single table."""
    if not path.is_file():
        raise ConfigError(f"mixture '{path}' does not exist")
    content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict) and "mixture" in content:
        content = content["mixture"]
    if not isinstance(content, list):
        return None
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or "table" not in entry:
            raise ConfigError(f"{path}: source {number} needs a 'table'")
        for key in entry:
            if key not in _KEYS:
                raise ConfigError(f"{path}: source {number}: unknown key '{key}'.{nearest(key, _KEYS)}")
        entry.setdefault("name", f"source{number}")
        if float(entry.get("weight", 1.0)) <= 0:
            raise ConfigError(f"{path}: source '{entry['name']}': weight {entry['weight']} must be above 0")
    names = [entry["name"] for entry in content]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: two sources have the same name: {', '.join(sorted(names))}")
    return content
