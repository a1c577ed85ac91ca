"""Updates whose loss or gradient norm jumps: told, left out, and undone with what led to them.

A jump has one of two causes. Bad rows: leaving the update out is all it takes. Or weights that earlier updates have
spoilt, which show only now: then leaving out helps nothing, and the run goes back to a state from before. The rows read
since then are left out as well (as in PaLM, Chowdhery et al., 2022, section 5.1: they found that the same rows do no
harm to other weights, so that neither the rows nor the state alone are at fault).
"""

from __future__ import annotations

import logging
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unival.errors import UnivalError
from unival.tasks.safety import row_ids

if TYPE_CHECKING:
    from unival.tasks.base import UnivalTask
    from unival.tasks.trainer import UnivalTrainer

logger = logging.getLogger(__name__)

ACTIONS = ("skip", "rollback")
SPIKES = "spikes.jsonl"  # beside the checkpoints: updates that jumped, with their rows
_WINDOW = 50  # values that the next one is compared with
_ENOUGH = 20  # of them before a jump can be told
_FLOOR = 0.05  # of the median: values that hardly vary would make a jump of any ripple


@dataclass
class Series:
    """The last values of one number of training."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def above(self, value: float) -> float:
        """By how many typical deviations ``value`` is above the median of the last ones; 0 while they are too few.

        A typical deviation is the median absolute one times 1.4826 (as for a normal distribution), so that earlier
        jumps do not widen it, and at least 5 % of the median.
        """
        if len(self.values) < _ENOUGH:
            return 0.0
        middle = statistics.median(self.values)
        spread = 1.4826 * statistics.median(abs(one - middle) for one in self.values)
        return (value - middle) / max(spread, _FLOOR * abs(middle), 1e-12)


@dataclass(frozen=True)
class Jump:
    """One update that jumped: which number, its value, the median of the ones before."""

    name: str
    value: float
    median: float

    def __str__(self) -> str:
        return f"its {self.name} is {self.value:.4g}, the median of the last ones {self.median:.4g}"


class Spikes:
    """Judges updates by their loss and gradient norm; ``action`` None: never.

    Its state belongs into the checkpoint, so that a run that goes on decides as an uninterrupted one.
    """

    def __init__(self, action: str | None, deviations: float) -> None:
        self.action, self.deviations = action, deviations
        self.series = {"loss": Series(), "gradient norm": Series()}
        self.count = 0

    def jump(self, values: Mapping[str, float]) -> Jump | None:
        """Whether an update with these numbers jumped; else they are remembered."""
        for name, value in values.items():
            series = self.series[name]
            if self.action and series.above(value) > self.deviations:
                self.count += 1
                return Jump(name, value, statistics.median(series.values))
        for name, value in values.items():
            self.series[name].values.append(value)
        return None

    def state(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "values": {name: list(series.values) for name, series in self.series.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]
        for name, values in state["values"].items():
            self.series[name] = Series(deque(values, maxlen=_WINDOW))


class Snapshot:
    """What an update changes, copied to the CPU's memory: weights, statistics, averages, the optimizer's moments.

    In memory and not on disk: every process restores its own, at once, whatever the last save was; it takes about as
    much as a checkpoint. ``update``: how many were made by then.
    """

    def __init__(self, update: int, tensors: list[torch.Tensor], moments: Any) -> None:
        self.update, self.tensors, self.moments = update, tensors, moments

    @classmethod
    def of(cls, update: int, tensors: Iterable[torch.Tensor], optimizer: torch.optim.Optimizer) -> Snapshot:
        return cls(update, [_copy(value) for value in tensors], _copy(optimizer.state_dict()["state"]))

    @torch.no_grad()
    def restore(self, tensors: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Write it back. The learning rate stays: it belongs to the count of updates, which goes on."""
        for own, saved in zip(tensors, self.tensors, strict=True):
            own.copy_(saved)
        state = optimizer.state_dict()
        optimizer.load_state_dict({**state, "state": _copy(self.moments)})

    def state(self) -> dict[str, Any]:
        return {"update": self.update, "tensors": self.tensors, "moments": self.moments}


def changing(*models: nn.Module | None, also: Iterable[torch.Tensor] = ()) -> list[torch.Tensor]:
    """Tensors that training changes: parameters and buffers, each once, in a fixed order."""
    found = [t for model in models if model is not None for t in (*model.parameters(), *model.buffers())]
    return list({id(tensor): tensor for tensor in (*found, *also)}.values())


class Undo:
    """What a trainer does about jumps: judge an update before it is made, undo it, count, and stop in the end.

    All processes judge the same sums and norms, so that they decide alike without asking each other.
    """

    def __init__(self, trainer: UnivalTrainer, task: UnivalTask) -> None:
        self.trainer, self.task, self.options = trainer, task, task.cfg
        self.spikes = Spikes(task.cfg.on_spike, task.cfg.spike_deviations)
        self.snapshot: Snapshot | None = None
        self.summed: tuple[float, float] | None = (
            None  # loss and its divisor over all processes, when exchanged
        )
        self._jump: Jump | None = None
        self._buffers: list[torch.Tensor] = []

    # around an update

    def begin(self) -> None:
        """Keep what leaving out this update, or going back, will need."""
        self.task.losses.clear()
        self.summed = self._jump = None
        if self.spikes.action == "skip":
            # a forward pass alone changes the running statistics of BatchNorm
            self._buffers = [buffer.clone() for buffer in self.trainer.get_model().buffers()]
        elif self.spikes.action == "rollback" and self._due():
            self.snapshot = Snapshot.of(self.trainer.get_num_updates(), self._tensors(), self._optimizer())

    def loss(self) -> tuple[float, float]:
        """Sum of the losses of this process's batches, and what it is to be divided by; zeros when nobody asks."""
        if self.spikes.action is None:
            return 0.0, 0.0
        losses = self.task.losses
        return sum(float(loss) for loss, _ in losses), sum(float(size) for _, size in losses)

    def jumps(self, norm: torch.Tensor) -> bool:
        """Whether the update with this gradient norm is to be left out."""
        if self.spikes.action is None or not norm.any():
            return False
        total, size = self.loss() if self.summed is None else self.summed
        values = {"gradient norm": float(norm), **({"loss": total / size} if size else {})}
        self._jump = self.spikes.jump(values)
        return self._jump is not None

    def end(self, parts: Sequence[Any]) -> None:
        """Undo an update that jumped.

        Raises:
            UnivalError: there were too many of them.
        """
        if self._jump is None:
            return
        update = self.trainer.get_num_updates()
        first = update
        if self.snapshot is not None:
            first = self.snapshot.update + 1
            self.snapshot.restore(self._tensors(), self._optimizer())
        for buffer, before in zip(self.trainer.get_model().buffers(), self._buffers, strict=False):
            buffer.copy_(before)
        rows = self._all_rows(parts)
        folder = Path(self.trainer.cfg.checkpoint.save_dir)
        self.task.guard.dump(parts, update - 1)
        undone = f"updates {first} to {update} are" if first < update else f"update {update} is"
        said = f"update {update}: {self._jump}; {undone} left out ({self.spikes.count} so far)"
        if self.trainer.is_data_parallel_master:
            logger.warning(f"{said}; its rows are in {folder / SPIKES}")
            record = {
                "update": update,
                "left_out": [first, update],
                "number": self._jump.name,
                "value": self._jump.value,
                "median": self._jump.median,
                "rows": rows,
            }
            self.trainer.spikes_journal.add(record)
        if self.spikes.count >= self.options.max_spikes:
            raise UnivalError(
                f"{said}. Stopped after {self.spikes.count} such updates (--max-spikes {self.options.max_spikes}): "
                f"lower --lr, look at the rows in {folder / SPIKES}, or start from an earlier checkpoint"
                + (" or with --on-spike rollback" if self.spikes.action == "skip" else "")
            )

    # in the checkpoint

    def state(self) -> dict[str, Any]:
        """A run that goes on needs the state to go back to, unless it is the checkpoint's own or replaced at once."""
        kept = None if self.snapshot is None or self._due() else self.snapshot.state()
        return {**self.spikes.state(), "snapshot": kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.spikes.restore(state)
        saved = state["snapshot"]
        if saved is None or self.spikes.action != "rollback":
            return
        if [t.shape for t in saved["tensors"]] == [t.shape for t in self._tensors()]:
            self.snapshot = Snapshot(saved["update"], saved["tensors"], saved["moments"])

    # what there is to go back to

    def _due(self) -> bool:
        update = self.trainer.get_num_updates()
        if self.snapshot is None or self.snapshot.update == update:
            return True
        return update % self.options.rollback_interval == 0

    def _tensors(self) -> list[torch.Tensor]:
        trainer, average = self.trainer, None
        also = masters(trainer.optimizer)
        if trainer.cfg.ema.store_ema:
            average = trainer.ema.get_model()
            also += trainer.ema.fp32_params.values()
        return changing(trainer.get_model(), average, also=also)

    def _optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizer.optimizer  # type: ignore[no-any-return]

    def _all_rows(self, parts: Sequence[Any]) -> list[str]:
        """Ids of the rows of all processes; every one of them comes here after the same update."""
        own = row_ids(parts)
        if self.trainer.data_parallel_world_size == 1:
            return own
        lists: list[Any] = [None] * self.trainer.data_parallel_world_size
        torch.distributed.all_gather_object(lists, own)
        return [name for rows in lists for name in rows]


def masters(optimizer: Any) -> list[torch.Tensor]:
    """The float32 weights of an optimizer in reduced precision; of any other, none."""
    kept = getattr(optimizer, "fp32_params", ())
    return list(kept.values()) if isinstance(kept, dict) else list(kept)


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list | tuple) else value
