"""Two counters that keep a long run honest: unreadable media and non-finite losses."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import torch
from torch import nn

from unival.errors import DataError, UnivalError

logger = logging.getLogger(__name__)

_SETTLE = 200  # rows before a share is meaningful
_LISTED = 50  # messages printed before counting silently


class BrokenMedia:
    """Counts and lists skipped rows; stops the run above a share of all rows read."""

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.rows = 0
        self.total = 0

    def count(self, sample: Any) -> None:
        """Take note of one batch.

        Raises:
            DataError: the share of unreadable rows is above the limit.
        """
        for part in sample if isinstance(sample, list) else [sample]:
            broken = part.get("broken", ())
            self.rows += part.get("nsentences", 0) + len(broken)
            for entry in broken:
                self.total += 1
                if self.total <= _LISTED:
                    logger.warning(f"skipped row {entry.row_id} of {entry.source}: {entry.reason}")
        if self.total and self.rows >= _SETTLE and self.total > self.max_share * self.rows:
            raise DataError(
                f"{self.total} of {self.rows} rows have unreadable media, above the limit of "
                f"{self.max_share:.1%}. Mend the files listed above or raise --max-broken-share."
            )


class NonFiniteGuard:
    """Names step, rows and module of a non-finite loss; stops after a set count."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen = 0

    def report(self, model: nn.Module, sample: Any, update: int, loss: torch.Tensor) -> None:
        """Log where the loss went wrong.

        Raises:
            UnivalError: the limit is reached.
        """
        self.seen += 1
        parts = sample if isinstance(sample, list) else [sample]
        ids = [name for part in parts for name in part["id"]]
        message = (
            f"loss is {float(loss.detach().float().sum())} at update {update + 1}, rows {', '.join(ids)}, "
            f"first non-finite output in {self._culprit(model, parts)}"
        )
        logger.error(message)
        if self.seen >= self.limit:
            raise UnivalError(
                f"{message}. Stopped after {self.seen} such updates (--max-nonfinite {self.limit}); "
                "lower --lr, check the rows, or train in float32."
            )

    @staticmethod
    @torch.no_grad()
    def _culprit(model: nn.Module, parts: list[Any]) -> str:
        module = getattr(model, "module", model)
        for name, parameter in module.named_parameters():
            if not torch.isfinite(parameter).all():
                return f"parameter '{name}'"
        found: list[str] = []

        def watch(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if not found and isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                    found.append(f"module '{name}'")

            return hook

        leaves = [(n, m) for n, m in module.named_modules() if n and not any(m.children())]
        handles = [leaf.register_forward_hook(watch(name)) for name, leaf in leaves]
        was_training = module.training
        try:
            module.eval()
            for part in parts:
                module(**part["net_input"])
        finally:
            module.train(was_training)
            for handle in handles:
                handle.remove()
        counts = Counter(found)
        return next(iter(counts), "the loss itself")
