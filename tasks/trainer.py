"""fairseq's trainer with what the recipes need and the engine lacks."""

from __future__ import annotations

import logging
import pickle
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, utils
from fairseq.optim.fp16_optimizer import _FP16OptimizerMixin
from fairseq.trainer import Trainer
from omegaconf import open_dict

from unival.core.files import make_folder
from unival.core.modalities import FLOAT32_KEYS, NAMES
from unival.core.seeding import rng_for
from unival.errors import CheckpointError, ConfigError, UnivalError
from unival.launch.stopping import REQUEST, STOPPED
from unival.launch.watchdog import WATCHDOG
from unival.modeling.untrained import in_no_file, untrained
from unival.models.ema import WeightAverage
from unival.tasks.ahead import Ahead
from unival.tasks.compiling import set_compiled
from unival.tasks.continuing import divide
from unival.tasks.ending import finished, patience_state, restore_patience
from unival.tasks.files import LAST, check_room
from unival.tasks.guards import not_finite
from unival.tasks.journal import Journal
from unival.tasks.optimizer import restore_masters, saved_masters
from unival.tasks.parameters import check_backend, report_gradients
from unival.tasks.precision import batch_norm_kept
from unival.tasks.preflight import check_together, data_facts
from unival.tasks.safety import row_ids
from unival.tasks.saving import WRITER, write
from unival.tasks.schedule import plan_schedule
from unival.tasks.spikes import SPIKES, Undo, masters
from unival.tasks.validation import FALLING
from unival.tasks.waiting import DATA_WAIT

logger = logging.getLogger(__name__)

# Classes that our own checkpoints hold besides tensors and plain containers.
_SAFE = [Namespace]


class UnivalTrainer(Trainer):
    """Adds: schedule from epochs, EMA repairs, checked restoring, exact resume in reduced precision,
    named non-finite gradients, float32 sound, a loss log in JSON lines, and a checkpoint when the run is asked to
    stop."""

    def __init__(self, cfg: Any, task: Any, model: Any, criterion: Any, quantizer: Any = None) -> None:
        _check_start(cfg, task)
        if cfg.common.bf16 and "torch_xla" not in sys.modules:
            with open_dict(cfg.common):
                cfg.common.tpu = False  # fairseq takes --bf16 for a TPU
        per_epoch, total = plan_schedule(cfg, task, divide(cfg, task))
        _choose_metric(cfg, task)
        restore_patience(None)  # an earlier run in this process may have left its own
        DATA_WAIT.reset()  # likewise
        with batch_norm_kept(model) if cfg.common.bf16 else nullcontext():
            super().__init__(cfg, task, model, criterion, quantizer)
        set_compiled(task.cfg.compile, self.device, task.cfg.compile_backend)
        if self.data_parallel_world_size > 1:
            with open_dict(cfg.checkpoint):
                # The engine would hand the contents of the file on as a pickle, which torch refuses to read.
                cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
            sources = task.datasets[task.args.train_subset].sources
            facts = data_facts(sources, [Path(cfg.checkpoint.save_dir) / LAST])
            check_together(facts, self.device, task.cfg.preflight_timeout)
        logger.info(task.plan(cfg, per_epoch, total))
        WATCHDOG.limit, WATCHDOG.together = task.cfg.hang_timeout, self.data_parallel_world_size > 1
        WATCHDOG.reading = task.being_read
        self._total = task.total = total
        self._iterator: Any = None
        self._ahead = Ahead(self)
        self._any_rank_stops = False
        self._undo = Undo(self, task)
        self._stagnation = task.stagnation
        self._reported = self._looked = False
        self._batch: int | None = None  # of the update that is being made
        self._gradient_norm: Any = 0.0
        folder = Path(cfg.checkpoint.save_dir)
        self._journal = Journal(folder / "train_log.jsonl")
        self.spikes_journal = Journal(folder / SPIKES)
        task.guard.folder = folder
        if self.is_data_parallel_master and not cfg.checkpoint.no_save:
            check_room(make_folder(cfg.checkpoint.save_dir), self._checkpoint_bytes(), _kept(cfg))
        self._samples: Sequence[Any] = ()
        task.log_scores, task.updates = self._log, self.get_num_updates

    def _checkpoint_bytes(self) -> int:
        """About what a checkpoint takes: weights, two moments (float32), their average."""
        weights = sum(value.nbytes for value in self.get_model().state_dict().values())
        trained = sum(
            parameter.numel() for parameter in self.get_model().parameters() if parameter.requires_grad
        )
        masters = 3 if self.cfg.common.bf16 or self.cfg.common.fp16 else 2
        states = 2 if self.task.cfg.on_spike == "rollback" else 1  # the one that it would go back to
        return states * (weights * (2 if self.cfg.ema.store_ema else 1) + 4 * trained * masters)

    def _build_ema(self) -> None:
        if self.cfg.ema.store_ema:
            self._ema = WeightAverage(self._model, self.cfg.ema, self.device)

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        """fairseq's state, and in reduced precision the float32 weights, so that a resumed run is exact."""
        state = super().state_dict()
        state["extra_state"]["patience"] = patience_state()
        state["extra_state"]["spikes"] = self._undo.state()
        copies = saved_masters(self.optimizer)
        if copies is not None:
            state["extra_state"]["master_weights"] = copies
        return state

    def save_checkpoint(self, filename: str, extra_state: dict[str, Any]) -> Any:
        """Save, but not for an error that is the user's to mend (the engine would write crash.pt)."""
        if isinstance(sys.exc_info()[1], UnivalError):
            return None
        if not self.should_save_checkpoint_on_current_rank:
            return None
        with nullcontext() if WRITER.inside else WATCHDOG.paused():
            state = WRITER.hold(self.state_dict())
            state["extra_state"].update(extra_state)
            write(state, filename, self.task.cfg.save_dir_fallback)
        return filename

    def consolidate_optimizer(self) -> None:
        """The engine calls this on all ranks before a checkpoint is written."""
        if sys.exc_info()[1] is None:
            self._check_parameters()
        super().consolidate_optimizer()

    def begin_valid_epoch(self, epoch: int) -> None:
        self._check_parameters()
        super().begin_valid_epoch(epoch)
        get = super().get_train_iterator
        self._ahead.epoch(self._iterator, lambda epoch: get(epoch, load_dataset=False))

    def _check_parameters(self) -> None:
        """Neither validate nor save what is no longer a model.

        Raises:
            UnivalError: a parameter is not finite, in the weights or their average.
        """
        average = self.ema.get_model() if self.cfg.ema.store_ema else None
        name = not_finite(self.get_model(), average)
        if name:
            raise UnivalError(
                f"parameter '{name}' is not finite after update {self.get_num_updates()}: nothing is saved, the "
                f"checkpoints in {self.cfg.checkpoint.save_dir} are those of before. Lower --lr, give --clip-norm, or "
                "train in float32"
            )

    def load_checkpoint(
        self,
        filename: str,
        reset_optimizer: bool = False,
        *args: Any,
        reset_meters: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Restore a run, or on a first start the initial weights.

        Raises:
            CheckpointError: vocabulary, architecture or weights that do not fit.
        """
        options = self.cfg.checkpoint
        if not Path(filename).exists():
            if self.task.cfg.init_from:
                self._start_from_bart(self.task.cfg.init_from)
            model = self.get_model()
            self._check_networks(model.state_dict(), self.task.cfg.init_from)
            self._trim_log()
            return None
        self.task.check_checkpoint(filename)
        weights_only = reset_optimizer and reset_meters
        if weights_only and (options.reset_dataloader or filename == options.finetune_from_model):
            self._start_from_weights(filename)
            self._trim_log()
            return None
        extra = self._resume(filename, reset_optimizer, *args, reset_meters=reset_meters, **kwargs)
        self._check_networks(self.get_model().missing_keys, filename)
        self._leave_if_finished(filename, extra)
        self._trim_log()
        return extra

    def _leave_if_finished(self, filename: str, extra: Mapping[str, Any]) -> None:
        """The engine would train one more update and write its checkpoints anew.

        Raises:
            SystemExit: with 0, when nothing of the run is left to do.
        """
        epoch = extra["train_iterator"]["epoch"]
        reason = finished(self.cfg, self.get_num_updates(), epoch, self.cumulative_training_time())
        if reason and Path(filename) == Path(self.cfg.checkpoint.save_dir) / LAST:
            logger.info(f"{filename}: this run is finished ({reason}); nothing was done")
            raise SystemExit(0)

    def _check_networks(self, missing: Iterable[str], start: str | None) -> None:
        """Stop where a network that the rows need is in no file; remember those that nothing will train."""
        task = self.task
        config = self.get_model().config
        random = {*in_no_file(self.get_model(), missing), *task.untrained}
        wanted = task.cfg.networks_from_scratch
        if wanted is None:  # a run that is given no file at all cannot have been meant to start from one
            wanted = start is None and not any(config.network_weights(modality) for modality in NAMES)
        options = {modality: config.network_option(modality) for modality in sorted(random)}
        held = dict(task.held_modalities())
        for modality in tuple(held):  # frames of videos train the image network
            held.setdefault(config.network_of(modality), held[modality])
        task.untrained = untrained(options, held, start, wanted)

    def _start_from_weights(self, filename: str) -> None:
        from unival.checkpoint.load import read_weights
        from unival.modeling.freezing import ADDED
        from unival.modeling.weights import load_into, modality_exceptions

        model = self.get_model()
        missing, unexpected = modality_exceptions(model)
        report = load_into(model, read_weights(filename), (*missing, ADDED.pattern), unexpected, extend=True)
        self._note_ancestor(filename)
        logger.info(f"initial weights from {filename}: {report}")
        self._check_networks(report.missing, filename)

    def _note_ancestor(self, filename: str) -> None:
        """Let this run's checkpoints say what they were trained from; only the rank that saves reads the file."""
        if self.is_data_parallel_master:
            from unival.checkpoint.lineage import lineage_through

            self.task.lineage = lineage_through(filename)

    def _start_from_bart(self, filename: str) -> None:
        from unival.modeling.pretrained import load_bart

        as_reference = self.task.cfg.init_as_reference
        report = load_bart(self.get_model(), filename, self.task.vocabulary, as_reference)
        self._note_ancestor(filename)
        logger.info(f"initial weights from {filename}: {report}")

    def _resume(self, filename: str, reset_optimizer: bool, *args: Any, **kwargs: Any) -> Any:
        store_ema = self.cfg.ema.store_ema
        # fairseq's own branch deletes the weights and then restores the EMA from them.
        self.cfg.ema.store_ema = False
        try:
            with torch.serialization.safe_globals(_SAFE):
                extra = super().load_checkpoint(filename, reset_optimizer, *args, **kwargs)
        except CheckpointError:
            raise
        except (AssertionError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{filename} cannot be resumed ({str(error).splitlines()[0]}). "
                "To take its weights alone, give it as --finetune-from-model."
            ) from None
        except Exception as error:
            cause = error.__context__ or error.__cause__
            if isinstance(cause, CheckpointError):
                raise cause from None
            raise
        finally:
            self.cfg.ema.store_ema = store_ema
        from unival.core.torchfile import read_header

        self.task.load_state_dict(read_header(filename)["task_state"])
        restore_patience(extra.pop("patience", None) if not kwargs.get("reset_meters") else None)
        copies = extra.pop("master_weights", None)
        if copies is not None and not reset_optimizer:
            restore_masters(self.optimizer, copies)
        if store_ema:
            averaged = None if reset_optimizer else extra.get("ema")
            self.ema.restore(averaged or self.get_model().state_dict(), build_fp32_params=False)
            self.ema.update_freq_counter = self.get_num_updates() % self.cfg.ema.ema_update_freq
            if self.cfg.ema.ema_fp32:
                self.ema.build_fp32_params(None if reset_optimizer else extra.get("ema_fp32_params"))
        spikes = extra.pop("spikes", None)
        if spikes is not None and not reset_optimizer:
            self._undo.restore(spikes)
        return extra

    # steps

    def _prepare_sample(self, sample: Any, is_dummy: bool = False) -> Any:
        """Mark stand-in batches for the task, which leaves them out of loss and statistics one by one.

        (The engine takes the last micro-batch of an update for all of them.) With several ranks a batch
        without a readable row is replaced by the stand-in, so that every rank runs forward and backward.
        """
        if not is_dummy:
            WATCHDOG.beat(row_ids(sample if isinstance(sample, list) else [sample]))
        if self._batch is not None and not is_dummy:
            self._seed_batch(self._batch)
            self._batch += 1
        unreadable = sample and not isinstance(sample, list) and not sample.get("nsentences")
        if self.data_parallel_world_size > 1 and unreadable:
            self.task.broken.count(sample)
            sample = {}
        prepared, dummy = super()._prepare_sample(sample, is_dummy)
        self.task.dummy = dummy or is_dummy
        return prepared, False

    def _seed_batch(self, step: int) -> None:
        """Dropout of a batch depends on its place in the update, not on the process that runs it. (The engine seeds
        once an update, all ranks alike; the first batch keeps that.)"""
        place = step * self.data_parallel_world_size + self.data_parallel_rank
        if place:
            rng = rng_for(self.cfg.common.seed, self.get_num_updates(), place, "batch of an update")
            utils.set_torch_seed(int(rng.integers(2**62)))

    def _fp_convert_sample(self, sample: Any) -> Any:
        converted = super()._fp_convert_sample(sample)
        for new, old in zip(_batches(converted), _batches(sample), strict=True):
            # The log-mel front end works on the waveform in float32 (half precision has 11 bits).
            for key in FLOAT32_KEYS & old["net_input"].keys():
                new["net_input"][key] = old["net_input"][key]
        return converted

    def clip_grad_norm(self, clip_norm: float) -> torch.Tensor:
        """Clip. A gradient that is not finite is reported; without a finite, non-zero one the update is left
        out: no weight decay, no momentum.

        Raises:
            UnivalError: too many of them, or in fp16 (whose overflows the engine's loss scaler deals with
                before) a scale that cannot be lowered any further.
        """
        try:
            norm = super().clip_grad_norm(clip_norm)
        except FloatingPointError as error:
            rows = ", ".join(row_ids([part for sample in self._samples for part in _batches(sample)]))
            raise UnivalError(
                f"{error} (update {self.get_num_updates() + 1}, rows {rows}); or train in bf16"
            ) from None
        if not self._reported:
            self._reported = True
            if self.is_data_parallel_master:
                report_gradients(self.get_model())
        # Everybody asks for it: the guards here, the engine's own, the meters, the log. One copy answers all of them,
        # and lets the update that follows run beside what the host does next.
        norm = norm.cpu()
        if not torch.isfinite(norm).all():
            self.task.guard.gradient(self.get_model(), self._samples, self.get_num_updates())
            norm = torch.zeros_like(norm)
        elif self._undo.jumps(norm):
            norm = torch.zeros_like(norm)
        if not norm.any():
            self.zero_grad()
            if isinstance(self.optimizer, _FP16OptimizerMixin) and not self.optimizer.has_flat_params:
                for master in masters(self.optimizer):
                    master.grad = None
        self._gradient_norm = norm
        return norm

    def lr_step(self, epoch: int, val_loss: Any = None) -> Any:
        """After an epoch. The engine saves every ``save_interval`` of them, also when the last one is none of these."""
        last = self.cfg.optimization.max_epoch
        begun = (
            self._iterator is not None and self._iterator._cur_epoch_itr is not None
        )  # a start comes here too
        if begun and last and epoch >= last and epoch % self.cfg.checkpoint.save_interval:
            checkpoint_utils.save_checkpoint(self.cfg.checkpoint, self, self._iterator, val_loss)
        return super().lr_step(epoch, val_loss)

    def get_train_iterator(self, epoch: int, *args: Any, **kwargs: Any) -> Any:
        get = super().get_train_iterator
        with WATCHDOG.paused():  # the index of a large table may be made here
            self._iterator = self._ahead.take(
                self.cfg.dataset.train_subset, epoch, lambda: get(epoch, *args, **kwargs)
            )
        self._iterator.waiting = self._stop_while_waiting
        return self._iterator

    def get_valid_iterator(self, subset: str, *args: Any, **kwargs: Any) -> Any:
        get = super().get_valid_iterator
        iterator = self._ahead.take_validation(subset, lambda: get(subset, *args, **kwargs))
        iterator.waiting = self._stop_while_waiting
        return iterator

    def _stop_while_waiting(self) -> None:
        """No batch comes; a process that is alone need not wait for the next one."""
        if self.data_parallel_world_size == 1 and self._iterator._cur_epoch_itr is not None:
            self._stop_if_asked()

    def _aggregate_logging_outputs(self, logging_outputs: Any, *sums: Any, ignore: bool = False) -> Any:
        """Add to the statistics that ranks exchange whether one of them was asked to stop, and their loss."""
        outputs, summed = super()._aggregate_logging_outputs(
            logging_outputs, *sums, *self._undo.loss(), float(REQUEST.made), ignore=ignore
        )
        *summed, total, size, stops = summed
        self._undo.summed = float(total), float(size)
        self._any_rank_stops = bool(stops)
        return outputs, summed

    def _stop_if_asked(self) -> None:
        """Save and leave when SIGUSR1 or SIGTERM came to any rank; all ranks do so after the same update.

        Raises:
            SystemExit: with the code that tells a launcher to start the run again.
        """
        several = self.data_parallel_world_size > 1
        if not (self._any_rank_stops if several else REQUEST.made):
            return
        with WATCHDOG.paused():
            checkpoint_utils.save_checkpoint(self.cfg.checkpoint, self, self._iterator, None)
            WRITER.wait()
            if several:
                torch.distributed.barrier()  # nobody leaves before the file is complete
        loud = self.is_data_parallel_master or (
            REQUEST.made and REQUEST.name != "SIGINT"
        )  # a terminal tells all ranks
        logger.log(
            logging.WARNING if loud else logging.INFO,
            f"stopped after update {self.get_num_updates()} ({REQUEST.name or 'another rank was asked to'}); "
            f"{Path(self.cfg.checkpoint.save_dir) / LAST} holds it, the same command goes on",
        )
        raise SystemExit(STOPPED)

    def valid_step(self, sample: Any, raise_oom: bool = False) -> Any:
        output = super().valid_step(sample, raise_oom)
        if not self._total or self.get_num_updates() < self._total:  # else the run is all but done
            self._stop_if_asked()
        return output

    def train_step(self, samples: Any, raise_oom: bool = False) -> Any:
        WRITER.look()  # a save that failed ends the run
        REQUEST.at_once = False  # from here on there is something to save
        self.task.pace.begin(self.get_num_updates())
        self._samples, self._batch = samples, 0
        self._undo.begin()
        try:
            output = super().train_step(samples, raise_oom)
        finally:
            self._batch = None
        self._undo.end([part for sample in samples for part in _batches(sample)])
        update = self.get_num_updates()
        if output is not None and update % self.cfg.common.log_interval == 0:
            names = ("loss", "nll_loss", "loss_v1", "loss_v2", "reward", "reward_std")
            record = {name: float(output[name]) for name in names if name in output}
            record["gnorm"] = float(self._gradient_norm)
            self._stagnation.update(
                update, {name: record[name] for name in ("loss", "gnorm") if name in record}
            )
            self._log({"split": "train", **record, "lr": float(self.get_lr()), "data_wait": DATA_WAIT.share})
        if not self._total or update < self._total:
            self._stop_if_asked()
            self._look()
            self._ahead.validation(self._iterator, super().get_valid_iterator)
        return output

    def _look(self) -> None:
        """Show within the first minute what the model says of a few validation rows, unless a validation came before.

        Nothing of the run depends on it: no score is kept, and every update seeds its own random numbers.
        """
        limit, task = self.task.cfg.first_look, self.task
        sharded = self.cfg.distributed_training.ddp_backend == "fully_sharded"  # no rank has the model alone
        alone = self.is_data_parallel_master and not sharded and not self.cfg.dataset.disable_validation
        if not limit or self._looked or not alone or task.pace.seconds < limit:
            return
        self._looked = True
        if task.validation is None or task.validation.done:
            return
        model = self.ema.get_model() if task.uses_ema else self.model
        with WATCHDOG.paused(), torch.no_grad():
            said = task.first_look(model, lambda sample: self._prepare_sample(sample)[0])
        if said:
            update, total = self.get_num_updates(), self._total
            begin = f"first look at update {update:,}{f' of {total:,}' if total else ''}"
            left = task.pace.left(update, total)
            logger.info(f"{begin}{f', {left}' if left else ''}: {said}")

    # log

    def _log(self, record: Mapping[str, Any]) -> None:
        if self.is_data_parallel_master:
            self._journal.add({"update": self.get_num_updates(), **record})

    def _trim_log(self) -> None:
        """Drop records of updates that this run will do (again)."""
        if self.is_data_parallel_master:
            for journal in (self._journal, self.spikes_journal):
                journal.trim(self.get_num_updates())


def _check_start(cfg: Any, task: Any) -> None:
    """Refuse before the first step what would otherwise fail, or start from random weights, later on.

    Raises:
        ConfigError: an absent initial checkpoint, or options that exclude each other.
    """
    checkpoint = cfg.checkpoint
    if checkpoint.finetune_from_model == "":  # an option given as empty takes back a recipe's
        checkpoint.finetune_from_model = None
    going_on = (Path(checkpoint.save_dir) / LAST).is_file()  # what a first start needs may be gone by then
    first_start = ("--finetune-from-model", "--init-from")
    named = {
        "--restore-file": checkpoint.restore_file if checkpoint.restore_file != LAST else None,
        "--finetune-from-model": checkpoint.finetune_from_model,
        "--init-from": task.cfg.init_from,
    }
    given = {option: file for option, file in named.items() if file}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other: each names the weights to start from")
    for option, file in given.items():
        if going_on and option in first_start:
            continue
        if not Path(file).is_file() and not (Path(file) / "config.json").is_file():
            raise ConfigError(
                f"{option}: the initial checkpoint '{file}' does not exist. "
                "Give an existing file, or leave the option out to start from random weights."
            )
    if checkpoint.finetune_from_model:
        for name in ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader"):
            if checkpoint.get(name):
                raise ConfigError(
                    f"--{name.replace('_', '-')} is of no use with --finetune-from-model, which takes the weights alone"
                )
    distributed = cfg.distributed_training
    several = distributed.distributed_world_size > 1
    if several and getattr(cfg.model, "sync_bn", False) and (cfg.common.cpu or not torch.cuda.is_available()):
        raise ConfigError(
            "--sync-bn with several processes needs GPUs (torch has no synchronised BatchNorm for CPUs); "
            "leave it out, or give --freeze-batchnorm instead"
        )
    check_backend(cfg)
    if task.cfg.uses_ema and not cfg.ema.store_ema:
        raise ConfigError("--uses-ema needs --store-ema: there are no averaged weights to validate with")


def _choose_metric(cfg: Any, task: Any) -> None:
    """Check the best-checkpoint metric, and set its direction where there is only one."""
    if cfg.dataset.disable_validation or task.validation is None:
        return
    checkpoint = cfg.checkpoint
    with open_dict(checkpoint):
        if not task.cfg.eval_generate and checkpoint.best_checkpoint_metric == task.default_metric:
            checkpoint.best_checkpoint_metric = "loss"
        checkpoint.maximize_best_checkpoint_metric = checkpoint.best_checkpoint_metric not in FALLING
    task.validation.check_metric(checkpoint.best_checkpoint_metric)
    task.best_metric = checkpoint.best_checkpoint_metric
    if hasattr(checkpoint_utils.save_checkpoint, "best"):
        del checkpoint_utils.save_checkpoint.best  # of an earlier run in this process


def _kept(cfg: Any) -> int:
    """Checkpoint files of different content that a run keeps at its end, at least."""
    options = cfg.checkpoint
    best = 0 if cfg.dataset.disable_validation else max(1, options.keep_best_checkpoints)
    return 1 + best + max(0, options.keep_last_epochs) + max(0, options.keep_interval_updates)


def _batches(sample: Any) -> list[Any]:
    """The batches of a sample: one, or a list (image and video sub-batches); dummies hold none."""
    parts = sample if isinstance(sample, list) else [sample]
    return [part for part in parts if part and "net_input" in part]
