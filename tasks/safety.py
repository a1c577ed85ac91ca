"""Two counters that keep a long run honest: unreadable media and non-finite numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unival.core.files import replacing
from unival.errors import DataError, UnivalError
from unival.modeling.freezing import BATCH_NORMS
from unival.tasks.guards import plain

logger = logging.getLogger(__name__)

_SETTLE = 1000  # rows before a share is meaningful, in tables that have as many
_LISTED = 50  # messages printed before counting silently
_IDS = 16  # rows named in a message
_DUMPS = 3  # batches written


class BrokenMedia:
    """Counts and lists skipped rows; stops the run above a share of all rows read."""

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.rows = 0
        self.total = 0
        self.expected = _SETTLE

    def expect(self, rows: int) -> None:
        """Take note of how many rows this process will read in an epoch."""
        self.expected = max(1, min(_SETTLE, rows))

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
                    logger.warning(f"skipped {entry.row_id} ({entry.source}): {entry.reason}")
                    if self.total == _LISTED:
                        logger.warning("further skipped rows are counted, not listed")
        # Early on the share is taken of the rows to come, so that one bad file at the start stops nothing.
        seen = max(self.rows, self.expected)
        if self.total > self.max_share * seen:
            raise DataError(
                f"{self.total} of {self.rows} rows read have unreadable media, above the limit of "
                f"{self.max_share:.1%} of {seen}. Mend the files listed above or raise --max-broken-share."
            )


class NonFiniteGuard:
    """Names step, rows and module of a non-finite loss or gradient; stops after a set count."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen = self.dumps = 0
        self.folder: Path | None = None  # where the first offending batches are written

    def loss(self, model: nn.Module, sample: Any, update: int, loss: torch.Tensor) -> None:
        """Log where the loss went wrong.

        Raises:
            UnivalError: the limit is reached.
        """
        parts = sample if isinstance(sample, list) else [sample]
        value = float(loss.detach().float().sum())
        self.dump(parts, update)
        self._report(f"the loss is {value}", update, row_ids(parts), _culprit(model, parts))

    def gradient(self, model: nn.Module, samples: Sequence[Any], update: int) -> None:
        """Log which gradient went wrong.

        Raises:
            UnivalError: the limit is reached.
        """
        module = unwrap(model)
        named = [
            n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        where = (
            f"gradient of '{named[0]}' ({len(named)} in all)" if named else "the sum of all ranks' gradients"
        )
        parts = [part for sample in samples for part in (sample if isinstance(sample, list) else [sample])]
        self.dump(parts, update)
        self._report("the gradient is not finite", update, row_ids(parts), where)

    def dump(self, parts: Sequence[Any], update: int) -> None:
        """Write some batches to look at, of the first bad updates."""
        if self.folder is None or self.dumps >= _DUMPS:
            return
        self.dumps += 1
        path = self.folder / f"offending_update{update + 1}_rank{os.environ.get('RANK', '0')}.pt"
        try:
            with replacing(path) as part:
                torch.save(plain(parts), part)
            logger.error(f"the batch is in {path} (torch.load)")
        except UnivalError as error:
            logger.error(str(error))

    def _report(self, what: str, update: int, ids: list[str], where: str) -> None:
        self.seen += 1
        rows = ", ".join(ids[:_IDS]) + (f" and {len(ids) - _IDS} more" if len(ids) > _IDS else "")
        message = f"{what} at update {update + 1}, rows {rows}; first non-finite: {where}"
        logger.error(f"{message}. The update is left out.")
        if self.seen >= self.limit:
            raise UnivalError(
                f"{message}. Stopped after {self.seen} such updates (--max-nonfinite {self.limit}); "
                "lower --lr, check the rows, or train in float32."
            )


def run_forward(
    criterion: Any, model: nn.Module, sample: Any, update: int
) -> tuple[Any, Any, dict[str, Any]]:
    """Run a criterion on a batch of training.

    BatchNorm has no variance where a batch leaves it one number a channel: one row, such as the last of an epoch, whose
    features are 1 x 1. Such a batch is normalised by the running statistics, which stay as they are.
    """
    try:
        return criterion(model, sample, update_num=update)  # type: ignore[no-any-return]
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.training]
    for norm in norms:
        norm.eval()
    try:
        return criterion(model, sample, update_num=update)  # type: ignore[no-any-return]
    finally:
        for norm in norms:
            norm.train()


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside data-parallel wrappers (fairseq uses two)."""
    while hasattr(model, "module"):
        model = model.module
    return model


def row_ids(parts: Sequence[Any]) -> list[str]:
    """Ids of the rows of some batches, each once."""
    return list(dict.fromkeys(name for part in parts if part for name in part.get("id", ())))


@torch.no_grad()
def _culprit(model: nn.Module, parts: Sequence[Any]) -> str:
    """Name the first parameter, or else the first layer's output, that is not finite."""
    module = unwrap(model)
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"parameter '{name}'"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(f"output of module '{name}'")

        return hook

    leaves = [(name, leaf) for name, leaf in module.named_modules() if name and not any(leaf.children())]
    handles = [leaf.register_forward_hook(watch(name)) for name, leaf in leaves]
    was_training = module.training
    try:
        module.eval()  # running statistics stay as they are
        for part in parts:
            module(**part["net_input"])
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss itself"
