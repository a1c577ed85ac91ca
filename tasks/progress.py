"""What a run says of itself at each validation, in one line: score, trivial predictors, time to the end, samples."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unival.data.dataset import DataSource
from unival.errors import UnivalError
from unival.evaluate.verdict import one_text, shown, variety
from unival.specs.baselines import strongest
from unival.tables import Row

if TYPE_CHECKING:
    from unival.predict.inference import Prediction

logger = logging.getLogger(__name__)

_FITTED = 1000  # rows that trivial predictors are fitted on, and of the validation that they are scored on
_SAMPLES = 2
FIRST_ROWS = 16  # of the validation, looked at soon after the start


class Pace:
    """How long the rest of a run will take: as long for each update as those that this process has made."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def begin(self, update: int) -> None:
        """Note when the first update of this process began, after ``update`` of the whole run."""
        if self._first is None:
            self._first = (time.monotonic(), update)

    @property
    def seconds(self) -> float:
        """Since the first update of this process began; 0 before."""
        return 0.0 if self._first is None else time.monotonic() - self._first[0]

    def left(self, update: int, total: int) -> str:
        """Return the time to the end in words, validations counted as they came; empty where it is not known."""
        if self._first is None or not total or not self._first[1] < update < total:
            return ""
        return f"{duration(self.seconds / (update - self._first[1]) * (total - update))} left"


def duration(seconds: float) -> str:
    """Return about how long: "20 s", "7 min", "3.2 h", "2.5 days"."""
    if seconds < 100:
        return f"about {seconds:.0f} s"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"about {seconds / 86400:.1f} days"


def trivial(
    source: DataSource, training: DataSource, metric: str, rows: Sequence[int] | None = None
) -> tuple[str, float] | None:
    """Return the strongest trivial predictor of a validation and its score; None where there is none.

    It is fitted on the training rows and scored on the validation's (``rows`` of them); evenly spaced ones of large
    tables.
    """
    judged = [source.table[k] for k in rows] if rows is not None else _evenly(source)
    try:
        found = source.spec.baselines(_evenly(training), judged, source.options, source.media)
    except UnivalError:  # rows without a target; media of the training that are not here
        return None
    name, scores = strongest(found, metric)
    return (name, scores[metric]) if metric in scores else None


def _evenly(source: DataSource) -> list[Row]:
    step = -(-len(source.table) // _FITTED)
    return [source.table[k] for k in range(0, len(source.table), step)]


def line(
    begin: str,
    left: str,
    scores: Mapping[str, float],
    metric: str,
    beside: tuple[str, float] | None,
    found: Sequence[Prediction],
) -> str:
    """Return the one line of a validation.

    scores: all metrics; metric: the one that counts; beside: the strongest trivial predictor and its score; found: the
    predictions in the order of the rows' ids.
    """
    parts = [f"{metric} {scores[metric]:.4g}" + (f" ({beside[0]}: {beside[1]:.4g})" if beside else "")]
    if several := variety([p.output for p in found]):
        parts.append(f"{several['different']:,} different of {len(found):,}")
        for p in [found[k * len(found) // _SAMPLES] for k in range(min(_SAMPLES, len(found)))]:
            truth = f" (= {shown(one_text(p.reference), 40)})" if p.reference is not None else ""
            parts.append(f"{shown(one_text(p.output), 40)}{truth}")
    head = ", ".join(filter(None, (begin, left)))
    return f"{head}: {'; '.join(parts)}" if head else "; ".join(parts)
