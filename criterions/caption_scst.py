"""Self-critical captioning: the reward is CIDEr-D."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from unival.criterions.scst import SelfCriticalCriterion
from unival.errors import UnivalError
from unival.rewards import CaptionOptions, CaptionReward

logger = logging.getLogger(__name__)


@register_criterion("scst_reward_criterion")
class CaptionCriterion(SelfCriticalCriterion):
    """CIDEr-D against all references of the picture, clip or sound; baseline: mean of the other captions.

    Document frequencies and references are read from the training table once per run, or the frequencies
    come from a cached table.
    """

    specs = ("caption",)
    options_class = CaptionOptions
    remedy = (
        "start from a checkpoint that was trained with cross entropy, and see that the references and, if one "
        "is given, the cached document frequencies belong to this corpus and are written like the captions"
    )

    def __init__(self, task: Any, options: CaptionOptions) -> None:
        super().__init__(task, options)
        self._tables: tuple[str, ...] = ()
        self._reward: CaptionReward | None = None

    def rewards(self, sample: dict[str, Any], tokens: Tensor, outputs: list[list[Any]]) -> Tensor:
        return self.reward()(sample["id"], outputs, sample["references"])

    def reward(self) -> CaptionReward:
        """The reward for the tables that are being read (with several tables they change by the epoch)."""
        sources = self.task.datasets[self.task.args.train_subset].sources
        tables = tuple(source.table.path for source in sources)
        if self._reward is None or tables != self._tables:
            self._tables = tables
            self._reward = _from_first_rank(lambda: self._read(sources[0]))
        return self._reward

    def _read(self, source: Any) -> CaptionReward:
        cached, tokenizer = self.options.scst_cider_cached_tokens, self.options.scst_tokenizer
        if cached:
            reward = CaptionReward.cached(cached, tokenizer)
        else:
            rows = (source.table[number] for number in range(len(source.table)))
            reward = CaptionReward.of_corpus(rows, source.spec, source.options, tokenizer)
        counted = reward.frequencies
        logger.info(
            f"CIDEr-D rewards: {len(counted.counts):,} n-grams of {counted.images:,.0f} items ({counted.source})"
        )
        return reward


def _from_first_rank(make: Callable[[], CaptionReward]) -> CaptionReward:
    """Return what ``make`` gives on rank 0, on all ranks: a corpus is read by one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return make()
    made: list[Any] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            made = [make()]
        except UnivalError as error:  # the other ranks wait, and must stop as well
            made = [error]
    torch.distributed.broadcast_object_list(made)
    if isinstance(made[0], UnivalError):
        raise made[0]
    return made[0]
