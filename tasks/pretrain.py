"""Pretraining on a mixture of tables, tasks and modalities (``unify_task``)."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq.tasks import register_task

from unival.batching.mixture import Source, mixture_batches, quotas
from unival.batching.reading import Item
from unival.core import options as cli_options
from unival.core.modalities import NAMES
from unival.data.dataset import DataSource, SpecDataset
from unival.data.iterator import EpochBatches
from unival.errors import ConfigError
from unival.modeling.config import ModelConfig
from unival.specs import all_options, get_spec
from unival.tables import open_table
from unival.tasks.base import UnivalTask
from unival.tasks.mixture import STREAMS, add_arguments, from_arguments, read_mixture
from unival.vocabulary.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

_PROBED = 500  # rows of a source looked at to find the modalities it holds


@register_task("unify_task")
class UnifyTask(UnivalTask):
    """Multitask pretraining.

    ``data`` is a YAML list of sources (``name table task modality weight group options``), or a table
    in the reference's eight-column layout beside the reference's stream options. ``--batch-size``
    counts rows of the whole mixture; image and video rows of a batch form two sub-batches of equal
    weight in the loss. Networks of modalities that no source holds are not built.
    """

    spec_name = "pretrain"

    def __init__(self, args: Namespace, vocabulary: Vocabulary) -> None:
        super().__init__(args, vocabulary)
        self.mix = from_arguments(args)
        self.listed = self._listed()

    def _listed(self) -> list[dict[str, Any]] | None:
        """The sources of a mixture file; None where tables and stream options are given."""
        paths = self._paths()
        if not paths:
            raise ConfigError("no data: give a mixture (YAML) or a pretraining table")
        listed = read_mixture(Path(paths[0])) if paths[0].endswith((".yaml", ".yml")) else None
        if listed is not None:
            if len(paths) > 1:
                raise ConfigError("give one mixture file; its sources for validation are marked split: valid")
            for stream in STREAMS:
                if getattr(self.mix, f"{stream}_data"):
                    raise ConfigError(
                        f"--{stream.replace('_', '-')}-data and a mixture file exclude each other"
                    )
        return listed

    @classmethod
    def add_args(cls, parser: Any) -> None:
        super().add_args(parser)
        add_arguments(parser)

    def look_for_tables(self) -> None:
        """As for all tasks; the sources of a mixture are all opened at the start anyway."""
        if self.listed is None:
            super().look_for_tables()

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
        for stream in STREAMS:
            table, count = getattr(self.mix, f"{stream}_data"), getattr(self.mix, f"{stream}_cnt")
            if table:
                own = getattr(self.mix, f"{stream}_selected_cols", None)
                chosen.append(
                    {"name": stream, "table": table, "weight": 1.0 / count, "selected_cols": own or columns}
                )
        return chosen

    def sources(self, split: str, epoch: int) -> list[DataSource]:
        """Sources of ``train``, or those marked ``split: valid``."""
        training = split == self.args.train_subset
        return [self._source(entry, training) for entry in self.entries(training, epoch)]

    def _source(self, entry: dict[str, Any], training: bool) -> DataSource:
        spec = get_spec(entry.get("task", "pretrain"), entry.get("modality"))
        table = open_table(
            entry["table"],
            spec.fields,
            spec.layout_name,
            entry.get("selected_cols"),
            media_root=self.cfg.image_dir,
        )
        options = self.options
        if entry.get("options"):
            options = all_options().from_options(**{**cli_options.to_dict(options), **entry["options"]})
        spec.check(table)
        if training:
            spec.prepare(table, options)
        name = entry.get("name", table.path)
        return DataSource(name, table, spec, table.loader(), options, entry.get("group"))

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        training = split == self.args.train_subset
        self.add_dataset(split, self.sources(split, epoch), training, split_groups=training)

    # model

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the model with the networks that the sources need.

        Raises:
            ConfigError: a source holds a modality whose network is not named.
        """
        held = self.held_modalities()
        for modality in NAMES:
            option = f"{modality}_encoder_name"
            named = getattr(cfg, option, None) or self._default_network(modality)
            built = named not in (None, "none")
            if modality in held and not built:
                raise ConfigError(
                    f"{held[modality]} has rows with {modality}: name the {modality} network with "
                    f"--{option.replace('_', '-')}"
                )
            if modality not in held and built and not self.mix.build_unused_encoders:
                setattr(cfg, option, "none")
                logger.info(
                    f"no {modality} network: no source has {modality} rows (--build-unused-encoders builds it)"
                )
        return super().build_model(cfg, from_checkpoint)

    def _default_network(self, modality: str) -> str | None:
        options = ModelConfig.from_options(self.args.arch, len(self.vocabulary)).options()
        return options[f"{modality}_encoder_name"]

    def held_modalities(self) -> dict[str, str]:
        """Modalities of the rows of all sources, each with a source that holds it."""
        if self.args.train_subset not in self.datasets:
            self.load_dataset(self.args.train_subset)
        sources = list(self.datasets[self.args.train_subset].sources)
        if not self.args.disable_validation:
            sources += [self._source(entry, training=False) for entry in self.entries(training=False)]
        return {m: f"source '{source.name}'" for source in sources for m in _modalities(source)}

    # batches

    def schedule(
        self, dataset: SpecDataset, batch_size: int, epoch: int, skipped: int = 0
    ) -> Sequence[list[Item]]:
        """Quotas per source in training; one pass in table order otherwise."""
        if not dataset.training:
            return _one_pass(dataset, batch_size, epoch)
        picks = mixture_batches(
            self._mixed(dataset, epoch),
            batch_size,
            self.options.seed,
            epoch,
            mode=self.mix.mixing,
            steps=self.mix.steps_per_epoch,
            num_ranks=self._world,
            skipped=skipped,
        )
        return EpochBatches(picks, epoch)

    @property
    def _world(self) -> int:
        """Processes that the run began with: an epoch is filled up to a multiple of them."""
        return self.division.world if self.division else max(1, self.args.distributed_world_size)

    def _mixed(self, dataset: SpecDataset, epoch: int) -> list[Source]:
        weights = [float(entry.get("weight", 1.0)) for entry in self.entries(training=True, epoch=epoch)]
        return [
            Source(source.name, len(source.table), weight, source.group or "")
            for source, weight in zip(dataset.sources, weights, strict=True)
        ]

    def plan(self, cfg: Any, per_epoch: int, total: int) -> str:
        """Rows per source and rank, updates, effective batch per source and padding, before the first step."""
        accumulate, batch = cfg.optimization.update_freq[0], cfg.dataset.batch_size
        dataset = self.datasets[self.args.train_subset]
        mixed = self._mixed(dataset, 1)
        found = quotas(mixed, batch, self.mix.mixing, self.mix.steps_per_epoch, self._world, accumulate)
        width = max(len("source"), *(len(source.name) for source in mixed))
        lines = [
            f"plan: {self.mix.mixing} mixing; rows of each source in an update (all ranks) and an epoch (one rank)",
            f"  {'source':{width}} {'rows':>10} {'weight':>7} {'update':>8} {'epoch':>10} {'passes':>7}  what",
        ]
        for source, quota, read in zip(mixed, found, dataset.sources, strict=True):
            what = f"{read.spec.name} ({', '.join(_modalities(read)) or 'text'}) in {read.table.path}"
            lines.append(
                f"  {source.name:{width}} {source.size:>10,} {source.weight:>7.4g} {quota.update:>8.4g}"
                f" {quota.epoch:>10,.6g} {quota.passes:>7.3g}  {what}"
            )
        slots = per_epoch * accumulate * batch * self._world
        read_rows = sum(quota.epoch for quota in found) * self._world
        return "\n".join(
            [
                *lines,
                f"  {self._world} rank(s) x {batch} rows x {accumulate} accumulated"
                f" = {batch * self._world * accumulate} rows an update",
                f"  {per_epoch:,} updates an epoch, {f'{total:,} updates' if total else 'no end set'},"
                f" {1 - read_rows / slots:.2%} of an epoch's places for rows stay empty",
            ]
        )


def _modalities(source: DataSource) -> list[str]:
    """Modalities of a source. Pretraining rows say it themselves: evenly spaced ones are looked at."""
    rows = range(0, len(source.table), max(1, len(source.table) // _PROBED))
    held = {source.spec.modality_of(source.table[index]) for index in rows}
    return [modality for modality in NAMES if modality in held]


def _one_pass(dataset: SpecDataset, batch_size: int, epoch: int) -> list[list[Item]]:
    """Batches of one source each, in table order."""
    rows = [[(epoch, s, r) for r in range(int(size))] for s, size in enumerate(dataset.sizes)]
    return [part[start : start + batch_size] for part in rows for start in range(0, len(part), batch_size)]
