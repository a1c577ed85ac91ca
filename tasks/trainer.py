"""fairseq's trainer with what the recipes need and the engine lacks."""

from __future__ import annotations

import json
import logging
import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.trainer import Trainer
from omegaconf import open_dict

from unival.errors import CheckpointError, ConfigError
from unival.models.ema import WeightAverage

logger = logging.getLogger(__name__)

# Classes that our own checkpoints hold besides tensors and plain containers.
torch.serialization.add_safe_globals([Namespace])


def plan_schedule(cfg: Any, task: Any) -> tuple[int, int]:
    """Fill in the length of the learning-rate schedule and its warm-up.

    fairseq's polynomial decay wants ``total_num_update``; recipes give epochs and ``--warmup-ratio``
    (reference behaviour: total = updates per epoch * max_epoch, warm-up = ratio * total).

    Returns:
        updates per epoch, total updates (0 when the run is unbounded).
    """
    world = max(1, cfg.distributed_training.distributed_world_size)
    batches = task.batches_per_epoch(cfg.dataset.batch_size, epoch=1)
    accumulate = cfg.optimization.update_freq[0]
    per_epoch = math.ceil(math.ceil(batches / world) / accumulate)
    total = int(cfg.optimization.max_update or 0)
    if not total and cfg.optimization.max_epoch:
        total = per_epoch * cfg.optimization.max_epoch
    scheduler = cfg.lr_scheduler
    if "total_num_update" in scheduler:
        with open_dict(scheduler):
            if not scheduler.total_num_update:
                if not total:
                    raise ConfigError("a decaying learning rate needs --max-epoch, --max-update or --total-num-update")
                scheduler.total_num_update = total
            ratio = task.cfg.warmup_ratio
            if ratio is not None:
                if not 0.0 <= ratio < 1.0:
                    raise ConfigError(f"--warmup-ratio {ratio} is not in [0, 1)")
                if scheduler.warmup_updates:
                    raise ConfigError("give --warmup-ratio or --warmup-updates, not both")
                scheduler.warmup_updates = int(ratio * scheduler.total_num_update)
    return per_epoch, total


class UnivalTrainer(Trainer):
    """Adds: schedule from epochs, EMA repairs, checked restoring, float32 sound, a loss log in JSON lines."""

    def __init__(self, cfg: Any, task: Any, model: Any, criterion: Any, quantizer: Any = None) -> None:
        restore = cfg.checkpoint.restore_file
        for option, file in (("--restore-file", restore), ("--finetune-from-model", cfg.checkpoint.finetune_from_model)):
            if file and file != "checkpoint_last.pt" and not Path(file).is_file():
                raise ConfigError(
                    f"{option}: the initial checkpoint '{file}' does not exist. "
                    "Give an existing file, or leave the option out to start from random weights."
                )
        per_epoch, total = plan_schedule(cfg, task)
        super().__init__(cfg, task, model, criterion, quantizer)
        logger.info(task.plan(cfg, per_epoch, total))
        self._log_path = Path(cfg.checkpoint.save_dir) / "train_log.jsonl"
        task.log_scores = self._log

    def _build_ema(self) -> None:
        if self.cfg.ema.store_ema:
            self._ema = WeightAverage(self._model, self.cfg.ema, self.device)

    def load_checkpoint(self, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Restore after checking vocabulary and architecture; never leaves the EMA behind the weights."""
        if Path(filename).is_file():
            self.task.check_checkpoint(filename, self.get_model())
        store_ema = self.cfg.ema.store_ema
        # fairseq's own branch deletes the weights and then restores the EMA from them.
        self.cfg.ema.store_ema = False
        try:
            extra = super().load_checkpoint(filename, reset_optimizer, *args, **kwargs)
        except CheckpointError:
            raise
        except Exception as error:
            cause = error.__context__ or error.__cause__
            if isinstance(cause, CheckpointError):
                raise cause from None
            raise
        finally:
            self.cfg.ema.store_ema = store_ema
        if store_ema and extra is not None:
            averaged = None if reset_optimizer else extra.get("ema")
            self.ema.restore(averaged or self.get_model().state_dict(), build_fp32_params=False)
            if self.cfg.ema.ema_fp32:
                masters = None if reset_optimizer else extra.get("ema_fp32_params")
                self.ema.build_fp32_params(masters)
        return extra

    def _fp_convert_sample(self, sample: Any) -> Any:
        converted = super()._fp_convert_sample(sample)
        for new, old in zip(_batches(converted), _batches(sample), strict=True):
            # The log-mel front end works on the waveform in float32 (half precision has 11 bits).
            if "patch_audios" in old["net_input"]:
                new["net_input"]["patch_audios"] = old["net_input"]["patch_audios"]
        return converted

    def train_step(self, samples: Any, raise_oom: bool = False) -> Any:
        output = super().train_step(samples, raise_oom)
        update = self.get_num_updates()
        if output is not None and update % self.cfg.common.log_interval == 0:
            names = ("loss", "nll_loss", "gnorm", "lr", "loss_v1", "loss_v2")
            record = {name: float(output[name]) for name in names if name in output}
            self._log({"split": "train", **record, "lr": float(self.get_lr())})
        return output

    def _log(self, record: Mapping[str, Any]) -> None:
        if self.is_data_parallel_master:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._log_path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"update": self.get_num_updates(), **record}) + "\n")


def _batches(sample: Any) -> list[Any]:
    """The batches of a sample: one, or a list (image and video sub-batches); dummies hold none."""
    parts = sample if isinstance(sample, list) else [sample]
    return [part for part in parts if part and "net_input" in part]
