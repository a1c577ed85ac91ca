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
        default="balanced",
        metadata={"help": "balanced (fixed quotas in each update) or proportional (to size)"},
    )
    steps_per_epoch: int | None = field(
        default=None,
        metadata={"help": "batches of all ranks in an epoch (default: one pass of the first source)"},
    )
    image_text_data: str | None = _stream(
        "image_text", "further image table, read every --image-text-cnt rows"
    )
    image_text_cnt: int = field(default=2, metadata={"help": "main rows per row of --image-text-data"})
    image_text_vqa_data: str | None = _stream("image_text_vqa", "image question table")
    image_text_vqa_cnt: int = field(
        default=2, metadata={"help": "main rows per row of --image-text-vqa-data"}
    )
    image_text_ground_data: str | None = _stream("image_text_ground", "image grounding table")
    image_text_ground_cnt: int = field(
        default=2, metadata={"help": "main rows per row of --image-text-ground-data"}
    )
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
    several_forwards = True

    def __init__(self, args: Namespace, vocabulary: Vocabulary) -> None:
        super().__init__(args, vocabulary)
        self.mix = cli_options.from_namespace(args, MixtureOptions)
        if self.mix.mixing not in MODES:
            raise ConfigError(
                f"--mixing '{self.mix.mixing}' is not one of {', '.join(MODES)}.{nearest(self.mix.mixing, MODES)}"
            )
        for stream in _STREAMS:
            if getattr(self.mix, f"{stream}_cnt") < 1:
                raise ConfigError(f"--{stream.replace('_', '-')}-cnt must be at least 1")
        self.listed = self._listed()

    def _listed(self) -> list[dict[str, Any]] | None:
        """The sources of a mixture file; None where tables and stream options are given."""
        paths = self._paths()
        if not paths:
            raise ConfigError("no data: give a mixture (YAML) or a pretraining table")
        listed = _read_mixture(Path(paths[0])) if paths[0].endswith((".yaml", ".yml")) else None
        if listed is not None:
            if len(paths) > 1:
                raise ConfigError("give one mixture file; its sources for validation are marked split: valid")
            for stream in _STREAMS:
                if getattr(self.mix, f"{stream}_data"):
                    raise ConfigError(
                        f"--{stream.replace('_', '-')}-data and a mixture file exclude each other"
                    )
        return listed

    @classmethod
    def add_args(cls, parser: Any) -> None:
        super().add_args(parser)
        cli_options.add_arguments(parser, MixtureOptions)

    def has_sharded_data(self, split: str) -> bool:
        """Several main tables: one per epoch."""
        return self.listed is None and super().has_sharded_data(split)

    def entries(self, training: bool, epoch: int = 1) -> list[dict[str, Any]]:
        """Descriptions of the sources of training or of validation.

        Raises:
            ConfigError: there are none.
        """
        if self.listed is not None:
            chosen = [entry for entry in self.listed if (entry.get("split", "train") == "train") == training]
            if not chosen:
                raise ConfigError(
                    "the mixture has no source for training"
                    if training
                    else "the mixture has no source for validation (split: valid); pretrain with --disable-validation"
                )
            return chosen
        paths = self._train_paths()
        columns = self.cfg.selected_cols
        if not training:
            return [{"name": "valid", "table": self._paths()[-1], "selected_cols": columns}]
        chosen = [{"name": "main", "table": paths[(epoch - 1) % len(paths)], "selected_cols": columns}]
        for stream in _STREAMS:
            table, count = getattr(self.mix, f"{stream}_data"), getattr(self.mix, f"{stream}_cnt")
            if table:
                own = getattr(self.mix, f"{stream}_selected_cols", None)
                chosen.append(
                    {"name": stream, "table": table, "weight": 1.0 / count, "selected_cols": own or columns}
                )
        return chosen

    def sources(self, split: str, epoch: int) -> list[DataSource]:
        """Sources of ``train``, or those marked ``split: valid``."""
        return [self._source(entry) for entry in self.entries(split == self.args.train_subset, epoch)]

    def _source(self, entry: dict[str, Any]) -> DataSource:
        spec = get_spec(entry.get("task", "pretrain"), entry.get("modality", "image"))
        table = open_table(
            entry["table"],
            spec.fields,
            spec.layout_name,
            entry.get("selected_cols"),
            media_root=self.cfg.image_dir,
        )
        options = self.options
        if entry.get("options"):
            options = SpecOptions.from_options(**{**cli_options.to_dict(options), **entry["options"]})
        spec.prepare(table, options)
        media = MediaLoader(table.media_root, str(Path(table.path).parent))
        return DataSource(entry.get("name", table.path), table, spec, media, options, entry.get("group"))

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        training = split == self.args.train_subset
        self.add_dataset(split, self.sources(split, epoch), training, split_groups=training)

    def schedule(self, dataset: SpecDataset, batch_size: int, epoch: int) -> Sequence[list[Item]]:
        """Quotas per source in training; one pass in table order otherwise."""
        names = [source.name for source in dataset.sources]
        if not dataset.training:
            return _one_pass(dataset, batch_size, epoch)
        weights = [float(entry.get("weight", 1.0)) for entry in self.entries(training=True, epoch=epoch)]
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
    """Batches of one source each, in table order."""
    rows = [[(epoch, s, r) for r in range(int(size))] for s, size in enumerate(dataset.sizes)]
    return [part[start : start + batch_size] for part in rows for start in range(0, len(part), batch_size)]


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
        if entry.get("split", "train") not in ("train", "valid"):
            raise ConfigError(f"{path}: source {number}: split '{entry['split']}' is neither train nor valid")
        entry.setdefault("name", f"source{number}")
        if float(entry.get("weight", 1.0)) <= 0:
            raise ConfigError(f"{path}: source '{entry['name']}': weight {entry['weight']} must be above 0")
    names = [entry["name"] for entry in content]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: two sources have the same name: {', '.join(sorted(names))}")
    return content
