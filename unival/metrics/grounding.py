"""Accuracy of boxes: intersection over union at thresholds and by target area, mean average precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from ..errors import DataError
from .result import Scores, pair

Box = Sequence[float]
_CLOSE = 1e-9


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1) in one unit; 0 when either is empty or inverted."""
    return float(_iou([float(x) for x in a], [float(x) for x in b]))


def _iou(a: Sequence[Any], b: Sequence[Any]) -> Any:
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if min(wa, ha, wb, hb, width, height) <= 0:
        return 0
    shared = width * height
    return shared / (wa * ha + wb * hb - shared)


def is_hit(a: Box, b: Box, threshold: float, iou: float | None = None) -> bool:
    """IoU >= threshold, decided in exact arithmetic on the decimals as written when rounding could matter."""
    iou = box_iou(a, b) if iou is None else iou
    if abs(iou - threshold) > _CLOSE:
        return iou >= threshold
    exact = _iou([Fraction(str(float(x))) for x in a], [Fraction(str(float(x))) for x in b])
    return exact > 0 and exact >= Fraction(str(threshold))


def box_accuracy(
    pred_boxes: Mapping[Any, Box] | Sequence[Box],
    gt_boxes: Mapping[Any, Box] | Sequence[Box],
    thresholds: Sequence[float] = (0.5,),
    missing: str = "error",
) -> Scores:
    """Share of predicted boxes with IoU >= threshold. Corpus keys ``acc@0.5`` ..., and ``mean_iou``."""
    rows, info = pair(pred_boxes, gt_boxes, missing)
    per_item: dict[Any, dict[str, float]] = {}
    for key, box, target in rows:
        for name, value in (("predicted", box), ("reference", target)):
            if value is not None and (len(value) != 4 or not all(math.isfinite(float(x)) for x in value)):
                raise DataError(f"id {key!r}: the {name} box {value!r} is not four finite numbers")
        iou = box_iou(box, target) if box is not None else 0.0
        per_item[key] = {
            f"acc@{t:g}": float(box is not None and is_hit(box, target, t, iou)) for t in thresholds
        }
        per_item[key]["iou"] = iou
    names = list(next(iter(per_item.values())))
    corpus = {name: math.fsum(v[name] for v in per_item.values()) / len(rows) for name in names}
    corpus["mean_iou"] = corpus.pop("iou")
    return Scores(corpus, per_item, {"metric": "box accuracy", **info})
