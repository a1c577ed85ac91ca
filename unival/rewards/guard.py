"""Statistics of rewards, and the check that there is something to learn from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from unival.errors import UnivalError

_PREFIX = "reward_"


@dataclass
class RewardSums:
    """Sums over the outputs of a step; those of several steps or ranks add up.

    ``smallest`` and ``largest`` are sums over ``steps`` of each step's extremes. ``rewarded`` and
    ``informative`` count outputs whose reward, and whose advantage, is not zero; ``rows`` and ``flat_rows``
    count rows, and rows whose outputs all have no advantage.
    """

    steps: float = 0.0
    samples: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0
    rewarded: float = 0.0
    informative: float = 0.0
    rows: float = 0.0
    flat_rows: float = 0.0

    @classmethod
    def of(cls, rewards: Tensor, advantage: Tensor, present: Tensor) -> RewardSums:
        """Sums of rewards and advantages (B, K); ``present`` (B, K) bool says which count."""
        values = rewards[present].double()
        if not len(values):
            return cls()
        # float32 means of equal rewards differ by rounding
        informative = (advantage.abs() > 1e-6) & present
        some = present.any(1)
        return cls(
            steps=1.0,
            samples=float(len(values)),
            total=float(values.sum()),
            squares=float(values.square().sum()),
            smallest=float(values.min()),
            largest=float(values.max()),
            rewarded=float(values.ne(0).sum()),
            informative=float(informative.sum()),
            rows=float(some.sum()),
            flat_rows=float((some & ~informative.any(1)).sum()),
        )

    @classmethod
    def joined(cls, logs: Iterable[Mapping[str, Any]]) -> RewardSums:
        """Add up what :meth:`log` put into the statistics of some steps."""
        logs = list(logs)
        return cls(**{f.name: sum(float(log.get(_PREFIX + f.name, 0)) for log in logs) for f in fields(cls)})

    def log(self) -> dict[str, float]:
        """These sums as entries of a step's statistics."""
        return {_PREFIX + name: value for name, value in asdict(self).items()}

    def statistics(self) -> dict[str, float]:
        """Return mean, population standard deviation and extremes of the rewards; empty without samples.

        The extremes are means over steps (micro-batches of all ranks).
        """
        if not self.samples:
            return {}
        mean = self.total / self.samples
        return {
            "reward": mean,
            "reward_std": math.sqrt(max(self.squares / self.samples - mean * mean, 0.0)),
            "reward_min": self.smallest / self.steps,
            "reward_max": self.largest / self.steps,
            "zero_advantage": self.flat_rows / self.rows,
        }


class RewardGuard:
    """Stops a run in which ``patience`` updates on end, on all ranks, brought no reward or no advantage.

    Updates are looked at in blocks of ``patience``; a block that began before this process did is let pass.
    """

    def __init__(self, patience: int, remedy: str) -> None:
        self.patience, self.remedy = patience, remedy
        self.block = -1
        self.whole = False
        self.counts = [0.0, 0.0]

    def see(self, update: int, sums: RewardSums) -> None:
        """Take note of a step of update number ``update``; all ranks must call this for the same updates.

        Raises:
            UnivalError: the last block of updates taught nothing.
        """
        if not self.patience:
            return
        block = update // self.patience
        if block != self.block:
            if self.whole and block == self.block + 1:
                self._check()
            self.block, self.whole = block, update % self.patience == 0
            self.counts = [0.0, 0.0]
        self.counts[0] += sums.rewarded
        self.counts[1] += sums.informative

    def _check(self) -> None:
        rewarded, informative = _summed(self.counts)
        if informative:
            return
        stopped = f"Stopped; --scst-patience {self.patience} sets this limit."
        if not rewarded:
            raise UnivalError(
                f"all rewards of the last {self.patience} updates are zero, there is nothing to learn from: "
                f"{self.remedy}. {stopped}"
            )
        raise UnivalError(
            f"in the last {self.patience} updates no output was better or worse than its baseline, there is "
            "nothing to learn from: let the outputs of a row differ (--scst-args with sampling, a larger "
            f"beam or temperature), or choose another --scst-baseline. {stopped}"
        )


def _summed(counts: list[float]) -> list[float]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return counts
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    values = torch.tensor(counts, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(values)
    return values.tolist()
