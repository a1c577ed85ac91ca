"""Looks at a run from outside: numbers that no longer change, and such that are none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

_ROWS = 8  # validation rows of which equal answers say something


class Stagnation:
    """Reports a number of training that is the same for ``limit`` updates, and answers that are all the same; once
    each. ``limit`` 0: never."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._seen: dict[str, tuple[float, int]] = {}
        self._answers: Sequence[str] = ()
        self._said: set[str] = set()

    def update(self, number: int, values: Mapping[str, float]) -> None:
        """Look at an update's numbers."""
        for name, value in values.items():
            before, since = self._seen.get(name, (None, number))
            since = since if before == value else number
            self._seen[name] = (value, since)
            if self.limit and number - since >= self.limit:
                self._say(
                    name,
                    f"{name} is {value:g} since update {since}, exactly: nothing is learned. Look at --lr, at what is "
                    "frozen (the log of the first update), and at targets that are all the same",
                )

    def validation(self, number: int, answers: Sequence[str]) -> None:
        """Look at the answers of a validation, in the order of the rows."""
        if not self.limit or len(answers) < _ROWS:
            return
        if len(set(answers)) == 1:
            self._say(
                "same", f"all {len(answers)} answers of the validation at update {number} are '{answers[0]}'"
            )
        elif list(answers) == list(self._answers):
            self._say("again", f"the validation at update {number} gives the same answers as the one before")
        self._answers = answers

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning(text)


@torch.no_grad()
def not_finite(*models: nn.Module | None) -> str:
    """Name the first parameter that is not finite, or statistic that is no number; empty when all is well."""
    for model in models:
        if model is None:
            continue
        for name, value in model.named_parameters():
            if not torch.isfinite(value).all():
                return name
        for name, value in model.named_buffers():
            if value.is_floating_point() and torch.isnan(value).any():
                return name
    return ""


def plain(batch: Any) -> Any:
    """A batch as tensors and texts on the CPU, for a file that shows what was wrong."""
    if isinstance(batch, torch.Tensor):
        return batch.detach().cpu()
    if isinstance(batch, Mapping):
        return {str(key): plain(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [plain(value) for value in batch]
    return batch if isinstance(batch, (int, float, str, bool, type(None))) else str(batch)
