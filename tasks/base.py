"""What all tasks share: vocabulary, tables, batches, safe steps, validation by generation."""

from __future__ import annotations

import logging
import math
import os
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.logging import metrics
from fairseq.tasks import LegacyFairseqTask

from unival.batching.mixture import batches
from unival.batching.reading import Item
from unival.checkpoint.header import Header, released_vocabulary
from unival.core import options as cli_options
from unival.core.paths import split_paths
from unival.core.sampling import evenly
from unival.data.dataset import DataSource, Failure, SpecDataset
from unival.data.iterator import Division, EpochBatches, ScheduledIterator
from unival.errors import CheckpointError, ConfigError, DataError, UnivalError
from unival.launch.watchdog import WATCHDOG
from unival.modeling.encoding import encoded_once
from unival.modeling.products import generating
from unival.models.parallel import giving_up
from unival.specs import all_options, get_spec
from unival.specs.inputs import augmenting
from unival.tables import Table, absent_files, open_table
from unival.tasks.guards import Stagnation
from unival.tasks.keeping import Keeping, keep_media, keeping
from unival.tasks.numbers import host_numbers
from unival.tasks.options import TaskOptions
from unival.tasks.progress import FIRST_ROWS, Pace
from unival.tasks.safety import BrokenMedia, NonFiniteGuard, row_ids, run_forward, unwrap
from unival.tasks.tracking import keep_sheet
from unival.tasks.validation import FALLING, Validation
from unival.vocabulary.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


class UnivalTask(LegacyFairseqTask):
    """A fairseq task over one :class:`unival.specs.TaskSpec`.

    Subclasses name the spec; modality and everything else are options. ``data`` is a comma-separated
    list of tables whose last is for validation; with several training tables epoch e reads table
    (e - 1) mod n (reference behaviour).
    """

    spec_name = ""
    modality = "image"

    def __init__(self, args: Namespace, vocabulary: Vocabulary) -> None:
        super().__init__(args)
        self.cfg = cli_options.from_namespace(args, TaskOptions)
        self.options = cli_options.from_namespace(args, all_options())
        self.vocabulary = vocabulary
        self.uses_ema = self.cfg.uses_ema
        self.spec = get_spec(self.spec_name, self.cfg.modality or self.modality)
        self.broken = BrokenMedia(self.cfg.max_broken_share)
        self.guard = NonFiniteGuard(self.cfg.max_nonfinite)
        self.stagnation = Stagnation(self.cfg.stagnation)
        self.validation: Validation | None = None
        self.keeping: Keeping | None = None
        self.division: Division | None = None  # of updates, set by the trainer
        self.default_metric = self.spec.best_metric
        self.best_metric = self.spec.best_metric
        self.dummy = False  # set by the trainer: the current batch only keeps this rank in step
        self.log_scores: Any = lambda record: None
        self.pace, self.total = (
            Pace(),
            0,
        )  # updates that the run will have made, 0: no end set; set by the trainer
        self.updates: Any = lambda: 0  # made so far
        self.lineage: list[str] = []  # hashes of the checkpoints that the weights descend from, oldest first
        self.untrained: list[str] = []  # modalities whose networks are built, random, and used by no row
        self.losses: list[tuple[float, Any]] = []  # of an update's batches, with their divisors
        self._validating = False
        self._trained = False

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """Add the positional ``data``, the engine's and the data's options."""
        parser.add_argument("data", help="comma-separated tables; the last is for validation")
        cli_options.add_arguments(parser, TaskOptions)
        cli_options.add_arguments(parser, all_options())
        # A schedule without a length gets one from the epochs (tasks/trainer.py); fairseq would refuse None.
        # ``data`` is a list of tables, not a folder where fairseq could look for further validation sets.
        parser.set_defaults(total_num_update=0, ignore_unused_valid_subsets=True)
        parser.set_defaults(best_checkpoint_metric=get_spec(cls.spec_name, cls.modality).best_metric)

    @classmethod
    def setup_task(cls, args: Namespace, **kwargs: Any) -> UnivalTask:
        """Read the vocabulary and make the task."""
        cfg = cli_options.from_namespace(args, TaskOptions)
        cfg.log_leftovers()
        task = cls(args, _vocabulary(args, cfg))
        task.look_for_tables()
        return task

    # data

    def _paths(self) -> list[str]:
        return [path for path in split_paths(self.cfg.data) if path != "-"]

    def look_for_tables(self) -> None:
        """Look for all tables before the first step, those of later epochs too.

        Raises:
            DataError: files that are not there.
        """
        absent = [file for path in self._paths() for file in absent_files(path)]
        if absent:
            others = f", nor are {', '.join(absent[1:4])}" if absent[1:] else ""
            more = f" and {len(absent) - 4} more" if absent[4:] else ""
            raise DataError(
                f"there is no such file{others}{more}; a run looks for the tables of all epochs before it begins "
                f"(relative paths start at the description's folder or at {os.getcwd()})",
                path=absent[0],
            )

    def _train_paths(self) -> list[str]:
        paths = self._paths()
        if not paths:
            raise ConfigError("no data: give at least one table")
        return paths if len(paths) == 1 or self.args.disable_validation else paths[:-1]

    def has_sharded_data(self, split: str) -> bool:
        """Several training tables: one per epoch."""
        return len(self._train_paths()) > 1

    def open(self, path: str) -> Table:
        return open_table(
            path,
            self.spec.fields,
            self.spec.layout_name,
            self.cfg.selected_cols,
            media_root=self.cfg.image_dir,
        )

    def source(self, table: Table, name: str) -> DataSource:
        self.spec.check(table)
        if name == self.args.train_subset:
            self.spec.prepare(table, self.options)
        return DataSource(name, table, self.spec, table.loader(), self.options, self.spec.modality)

    def sources(self, split: str, epoch: int) -> list[DataSource]:
        """The tables of a split: one, unless a subclass mixes."""
        if split == self.args.train_subset:
            paths = self._train_paths()
            path = paths[(epoch - 1) % len(paths)]
        else:
            path = self._paths()[-1]
        return [self.source(self.open(path), split)]

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Open the split's tables. ``valid`` reads the last table, ``train`` the others in turn."""
        training = split == self.args.train_subset
        self.add_dataset(split, self.sources(split, epoch), training)

    def add_dataset(
        self, split: str, sources: list[DataSource], training: bool, split_groups: bool = False
    ) -> None:
        """Make the data set of a split, and for validation what predicts and scores it."""
        limit = self.cfg.media_timeout
        keep_media(self.cfg, sources)
        dataset = SpecDataset(sources, self.vocabulary, self.options.seed, training, split_groups, limit)
        self.datasets[split] = dataset
        if training:
            world = max(1, self.args.distributed_world_size or 1)
            self.broken.expect(len(dataset) // world)
        else:
            self.validation = Validation(sources, self.vocabulary, self.cfg)

    def held_modalities(self) -> dict[str, str]:
        """Modalities of the rows, each with what needs it, for messages."""
        return {self.spec.modality: f"task '{self.args.task}'"} if self.spec.reads_media else {}

    def schedule(
        self, dataset: SpecDataset, batch_size: int, epoch: int, skipped: int = 0
    ) -> Sequence[list[Item]]:
        """Batches of all ranks for one epoch: a seeded permutation in training, table order otherwise; without its
        first ``skipped`` rows."""
        rows = batches(len(dataset), batch_size, self.options.seed, epoch, dataset.training, skipped)
        return EpochBatches(rows, epoch, source=0)

    def batches_per_epoch(self, batch_size: int, epoch: int = 1) -> int:
        """Number of training batches over all ranks in one epoch."""
        if self.args.train_subset not in self.datasets:
            self.load_dataset(self.args.train_subset, epoch=epoch)
        return len(self.schedule(self.datasets[self.args.train_subset], batch_size, epoch))

    def get_batch_iterator(
        self,
        dataset: SpecDataset,
        max_sentences: int | None = None,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        skip_remainder_batch: bool = False,
        **kwargs: Any,
    ) -> ScheduledIterator:
        """fairseq's hook. Batches are counted in rows (``--batch-size``); ``--max-tokens`` is refused."""
        if max_sentences is None:
            raise ConfigError("give --batch-size: rows per step and device (--max-tokens is not supported)")
        # Before the first update fairseq reads the whole validation set once without using it.
        rehearsal = not dataset.training and not self._trained and self.args.train_subset in self.datasets

        @lru_cache(maxsize=2)
        def schedule(of_epoch: int, skipped: int) -> Sequence[list[Item]]:
            planned = self.schedule(dataset, max_sentences, of_epoch, skipped)
            return planned[:num_shards] if rehearsal else planned

        return ScheduledIterator(
            dataset,
            schedule,
            self.division if dataset.training else None,
            seed=self.options.seed,
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            epoch=epoch,
            buffer_size=data_buffer_size,
            skip_remainder_batch=skip_remainder_batch,
        )

    def plan(self, cfg: Any, per_epoch: int, total: int) -> str:
        """Rows per source, steps and effective batch, printed before the first step."""
        world = max(1, cfg.distributed_training.distributed_world_size)
        accumulate = cfg.optimization.update_freq[0]
        dataset = self.datasets[self.args.train_subset]
        lines = [
            f"  {s.name}: {len(s.table):,} rows of {s.spec.name} ({s.spec.modality}) in {s.table.path}"
            for s in dataset.sources
        ]
        division = self.division or Division.of(cfg)
        steps = f"{total:,} updates" if total else "no end set"
        return "\n".join(
            [
                "plan:",
                *lines,
                f"  {world} rank(s) x {cfg.dataset.batch_size} rows x {accumulate} accumulated"
                f" = {division.update(1)} rows an update",
                f"  {per_epoch:,} updates an epoch, {steps}",
            ]
        )

    def being_read(self) -> list[str]:
        """What data workers have in hand, for messages."""
        return [
            f"data worker {now.worker} of '{split}' has been reading {dataset.place(now.item)} for {now.seconds:.0f} s"
            for split, dataset in self.datasets.items()
            for now in dataset.reading.now()
        ]

    # steps

    def begin_epoch(self, epoch: int, model: Any) -> None:
        self._trained = True
        self.keep_features(model)

    def keep_features(self, model: Any) -> None:
        """Let the tables' rows find kept features of the model's frozen networks, where that is asked for."""
        if self.cfg.keep_features is None:
            return
        if augmenting(self.options, self.spec.name == "pretrain"):
            raise ConfigError(
                "--keep-features and random crops and colours (--use-dataaug, on by default in pretraining) contradict "
                "each other: give --no-use-dataaug, or leave --keep-features out"
            )
        if self.keeping is None:
            self.keeping = Keeping(self.cfg, unwrap(model))
        self.keeping.attach(source for dataset in self.datasets.values() for source in dataset.sources)

    def train_step(
        self,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """One forward and backward pass.

        A batch without a readable row and a non-finite loss give a zero gradient; both are counted
        and stop the run above their limits.
        """
        with giving_up(model):
            counts = not (ignore_grad or self.dummy)
            if counts:
                self.broken.count(sample)
            if not isinstance(sample, list) and not sample.get("nsentences"):
                loss, sample_size, logging_output = _zero_gradient(model), 0, criterion.empty_log()
            else:
                forward = torch.autograd.profiler.record_function("forward")
                with forward, keeping(self.keeping, unwrap(model), sample):
                    loss, sample_size, logging_output = run_forward(criterion, model, sample, update_num)
                # asked before the backward pass, whose gradients could not be taken back from those of other batches
                value, logging_output = host_numbers(loss, logging_output)
                if not math.isfinite(value):
                    if counts:
                        self.guard.loss(model, sample, update_num, loss)
                    loss, sample_size, logging_output, value = (
                        _zero_gradient(model),
                        0,
                        criterion.empty_log(),
                        0.0,
                    )
                elif not counts:
                    loss, sample_size, logging_output, value = loss * 0, 0, criterion.empty_log(), 0.0
                self.losses.append((value, sample_size))
            with torch.autograd.profiler.record_function("backward"):
                optimizer.backward(loss)
            return loss, sample_size, logging_output

    def valid_step(
        self, sample: Any, model: Any, criterion: Any, ema_model: Any = None, **kwargs: Any
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """Loss and predictions; with ``--uses-ema`` both come from the averaged weights."""
        evaluated = ema_model if self.uses_ema else model
        evaluated.eval()
        with torch.no_grad(), encoded_once():
            # The search goes on from what the loss has encoded: in the search's way. Features that are kept serve
            # training as well, in whose way they come.
            way = generating() if self.keeping is None else nullcontext()
            with way, keeping(self.keeping, unwrap(evaluated), sample):
                loss, sample_size, logging_output = criterion(evaluated, sample, update_num=0)
            if self.dummy:
                return loss * 0, 0, criterion.empty_log()
            value, logging_output = host_numbers(loss, logging_output)
            if math.isnan(value):
                raise UnivalError(
                    f"the loss of the validation is no number (first at {', '.join(row_ids(_parts(sample))[:3])}): the "
                    "weights are not usable. Nothing is saved, the checkpoints are those of before. Lower --lr, give "
                    "--clip-norm, or train in float32"
                )
            if self.validation is not None:
                self.validation.predict(unwrap(evaluated), sample)
        return loss, sample_size, logging_output

    # validation scores

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        self._validating = True
        self.keep_features(model)
        if self.validation is not None:
            self.validation.start()

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        """Criterion statistics, and a placeholder for the score that only the whole set has."""
        with metrics.aggregate() as logged:
            criterion.__class__.reduce_metrics(logging_outputs)
        if self._validating and self.best_metric not in logged:
            metrics.log_scalar(self.best_metric, math.nan)

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """Score the predictions of all ranks and put the metrics where fairseq picks the best checkpoint."""
        self._validating = False
        assert self.validation is not None
        with WATCHDOG.paused():
            scores = self.validation.scores()
        stats.update(scores)
        self.stagnation.validation(self.updates(), self.validation.answers)
        name = self.best_metric
        if not math.isfinite(stats.get(name, math.nan)):
            raise DataError(
                f"validation gives no finite '{name}': the best checkpoint cannot be chosen by it"
            )
        best = getattr(checkpoint_utils.save_checkpoint, "best", None)
        if best is not None:
            choose = min if name in FALLING else max
            stats[f"best_{name}"] = choose(best, stats[name])
        if self.args.distributed_rank == 0:
            logger.info(self._line(stats))
        self.log_scores({"split": "valid", "loss": float(stats.get("loss", math.nan)), **scores})
        update = int(stats["num_updates"])
        title = f"update {update:,}, {name} {stats[name]:.4g}"
        if self.args.distributed_rank == 0 and (sheet := self.validation.sheet(title)) is not None:
            keep_sheet(sheet, Path(self.args.save_dir), update)

    def _line(self, stats: dict[str, Any]) -> str:
        """What the latest validation found, in one line."""
        assert self.validation is not None
        update, total = self.updates(), self.total
        training = self.datasets.get(self.args.train_subset)
        only = training.sources[0] if training is not None and len(training.sources) == 1 else None
        begin = f"validation at update {update:,}{f' of {total:,}' if total else ''}"
        with WATCHDOG.paused():
            return self.validation.line(begin, self.pace.left(update, total), stats, self.best_metric, only)

    def first_look(self, model: Any, prepare: Any) -> str:
        """Predict some validation rows soon after the start; returns a line, empty where there is nothing to look at.

        ``prepare``: from a collated batch to one of the model's device and type.
        """
        dataset, training = self.datasets.get(self.args.valid_subset), self.datasets[self.args.train_subset]
        if dataset is None or self.validation is None or len(self.validation.sources) != 1:
            return ""
        if len(dataset.sources) != 1 or len(training.sources) != 1:
            return ""
        rows = evenly(range(len(dataset)), FIRST_ROWS)
        sample = dataset.collater([dataset[(1, 0, row)] for row in rows])
        if isinstance(sample, Failure):
            sample.raise_()
        evaluated = unwrap(model)
        evaluated.eval()
        return self.validation.first_look(evaluated, prepare(sample), training.sources[0], rows)

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to be used without this task: vocabulary, prompts, task options."""
        return {
            "unival": {
                "task": {"name": self.spec.name, "modality": self.spec.modality},
                "vocabulary": self.vocabulary.to_dict(),
                "fingerprint": self.vocabulary.fingerprint(),
                "options": cli_options.to_dict(self.options),
                "decoding": {"mode": self.cfg.val_inference_type, "settings": dict(self.cfg.eval_args or {})},
                "lineage": self.lineage,
                "untrained": self.untrained,
            }
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the lineage and what was never trained; all else is a function of the options."""
        self.lineage = list(state.get("unival", {}).get("lineage", []))
        self.untrained = list(state.get("unival", {}).get("untrained", []))

    def check_checkpoint(self, filename: str) -> None:
        """Compare a checkpoint's vocabulary and architecture with this run's before its weights are taken.

        Raises:
            CheckpointError: another vocabulary, or another architecture.
        """
        header = Header.read(filename)
        theirs, arch = header.fingerprint, header.arch
        if theirs is not None and theirs != self.vocabulary.fingerprint():
            raise CheckpointError(
                f"{filename} was trained with another vocabulary (fingerprint {theirs[:12]}, "
                f"this run's is {self.vocabulary.fingerprint()[:12]}). Give its own with --bpe-dir."
            )
        if arch is not None and arch.replace("ofa_", "unival_") != self.args.arch:
            raise CheckpointError(
                f"{filename} holds a model of arch '{arch}', this run asks for --arch {self.args.arch}"
            )

    @property
    def source_dictionary(self) -> None:
        return None

    @property
    def target_dictionary(self) -> None:
        return None

    def max_positions(self) -> None:
        return None


def _vocabulary(args: Namespace, cfg: TaskOptions) -> Vocabulary:
    """``--bpe-dir``, else the vocabulary of the checkpoint that the run starts from, else the released files.

    A checkpoint without a vocabulary takes the released files, as everywhere (checkpoint.header).
    """
    counts = {"num_codes": cfg.code_dict_size, "num_bins": cfg.num_bins}
    if cfg.bpe_dir:
        return Vocabulary.load(cfg.bpe_dir, **counts)
    for start in (getattr(args, "finetune_from_model", None), getattr(args, "restore_file", None)):
        if start and Path(start).exists():
            logger.info(f"vocabulary of {start}, since --bpe-dir is not given")
            return Header.read(start).vocabulary(counts=counts)
    folder = released_vocabulary()
    if not (folder / "dict.txt").is_file():
        raise ConfigError(
            f"--bpe-dir is missing, and there is no vocabulary in '{folder}': give the folder of one (make one with "
            "'unival data vocabulary', fetch the released one with 'unival download bpe')"
        )
    logger.info(f"vocabulary of {folder}, since --bpe-dir is not given")
    return Vocabulary.load(folder, **counts)


def _parts(sample: Any) -> list[Any]:
    return sample if isinstance(sample, list) else [sample]


def _zero_gradient(model: Any) -> torch.Tensor:
    # Touching every parameter keeps data-parallel gradient exchange in step with the other ranks.
    zero = torch.zeros(())
    for parameter in model.parameters():
        if parameter.requires_grad:
            zero = zero.to(parameter.device) + parameter.sum() * 0.0
    return zero
