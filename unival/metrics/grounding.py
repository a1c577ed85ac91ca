"""Accuracy of boxes: intersection over union at thresholds and by target area, mean average precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from unival.errors import ConfigError, DataError
from unival.metrics.result import Scores, pair
from unival.vocabulary.boxes import are_shares

Box = Sequence[float]
Detection = tuple[Box, Any, float]
_CLOSE = 1e-9


def box_iou(a: Box, b: Box) -> float:
    """IoU of two boxes (x0, y0, x1, y1) in one unit; 0 when either is empty or inverted."""
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


SIZES = ("small", "medium", "large")


def size_of(target: Box, areas: tuple[float, float]) -> str:
    """Return "small" (area below the first of ``areas``, squared pixels), "large" (above the second) or "medium"."""
    area = (float(target[2]) - float(target[0])) * (float(target[3]) - float(target[1]))
    return "small" if area < areas[0] else "large" if area > areas[1] else "medium"


def box_accuracy(
    pred_boxes: Mapping[Any, Box] | Sequence[Box],
    gt_boxes: Mapping[Any, Box] | Sequence[Box],
    thresholds: Sequence[float] = (0.5,),
    missing: str = "error",
    areas: tuple[float, float] | None = None,
    protocol: str = "official",
) -> Scores:
    """Share of boxes (x0, y0, x1, y1), both in one unit, whose IoU reaches each threshold.

    Corpus keys, all 0 to 1: ``acc@0.5`` ... per threshold, ``mean_iou``; with ``areas=(small, large)`` in
    squared pixels also ``acc@0.5/small`` (target area below small), ``/medium``, ``/large`` (above large)
    and ``count/small`` .... A prediction of None is a miss. Empty or inverted boxes have IoU 0.

    protocol "official" divides each size group by its own count; "unival" (reference behaviour) zeroes the
    targets outside the group but divides by all boxes, and adds 1e-6 to the union before it compares, so an
    IoU of exactly the threshold is a miss for small coordinates. Raises DataError for boxes that are not
    four finite numbers and as :func:`pair` does.
    """
    if protocol not in ("official", "unival"):
        raise ConfigError(f"unknown protocol {protocol!r}: choose official or unival")
    rows, info = pair(pred_boxes, gt_boxes, missing)
    per_item: dict[Any, dict[str, float]] = {}
    groups: dict[str, list[Any]] = {size: [] for size in SIZES}
    for key, box, target in rows:
        _check(key, "reference", target)
        if box is not None:
            _check(key, "predicted", box)
        iou = box_iou(box, target) if box is not None else 0.0
        if box is None:
            hits = dict.fromkeys(thresholds, False)
        elif protocol == "unival":
            value = _reference_iou(box, target)
            hits = {t: value > 0 and value >= t for t in thresholds}
        else:
            hits = {t: is_hit(box, target, t, iou) for t in thresholds}
        per_item[key] = {f"acc@{t:g}": float(hit) for t, hit in hits.items()} | {"iou": iou}
        if areas is not None:
            groups[size_of(target, areas)].append(key)
    _same_units([box for _, box, _ in rows if box is not None], [target for _, _, target in rows])
    names = [f"acc@{t:g}" for t in thresholds]
    corpus = {name: math.fsum(v[name] for v in per_item.values()) / len(rows) for name in names}
    corpus["mean_iou"] = math.fsum(v["iou"] for v in per_item.values()) / len(rows)
    if areas is not None:
        for group, keys in groups.items():
            total = len(rows) if protocol == "unival" else len(keys)
            for name in names:
                if total:
                    corpus[f"{name}/{group}"] = math.fsum(per_item[key][name] for key in keys) / total
            corpus[f"count/{group}"] = float(len(keys))
    return Scores(corpus, per_item, {"metric": "box accuracy", "protocol": protocol, **info})


def _check(key: Any, kind: str, box: Any) -> None:
    try:
        good = len(box) == 4 and all(math.isfinite(float(x)) for x in box)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise DataError(f"id {key!r}: the {kind} box {box!r} is not four finite numbers x0, y0, x1, y1")


def _same_units(predicted: Sequence[Box], references: Sequence[Box]) -> None:
    """DataError where one side has shares of the image (0..1) throughout and the other has pixels."""
    shares = [
        bool(boxes) and all(are_shares([float(c) for c in box]) for box in boxes)
        for boxes in (predicted, references)
    ]
    beyond = [any(float(c) > 1 for box in boxes for c in box) for boxes in (predicted, references)]
    for own, other, which in ((0, 1, "predicted"), (1, 0, "reference")):
        if shares[own] and beyond[other]:
            raise DataError(
                f"all {which} boxes lie in 0..1 and look like shares of the image's sides, the others are pixels: "
                "multiply x by the image's width and y by its height"
            )


def _reference_iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / (union + 1e-6))


def mean_average_precision(
    predictions: Mapping[Any, Sequence[Detection]],
    references: Mapping[Any, Sequence[tuple[Box, Any]]],
    thresholds: Sequence[float] = (0.5,),
    missing: str = "error",
) -> Scores:
    """Mean over labels of the average precision of scored boxes (Pascal VOC 2010+: area under the envelope).

    ``predictions[id]`` lists (box, label, score), ``references[id]`` lists (box, label). By falling score
    (ties in id order) a box takes the unmatched target of its image and label with the highest IoU if that
    reaches the threshold. Labels are those of the references. Corpus keys ``mAP@0.5`` ..., and ``mAP``
    their mean.
    """
    rows, info = pair(predictions, references, missing)
    targets = {key: list(boxes) for key, _, boxes in rows}
    labels = sorted({label for boxes in targets.values() for _, label in boxes}, key=str)
    if not labels:
        raise DataError("the references hold no boxes: mAP is undefined")
    found = [(key, box, label, float(score)) for key, items, _ in rows for box, label, score in items or ()]
    found.sort(key=lambda item: -item[3])
    corpus = {
        f"mAP@{t:g}": math.fsum(_average_precision(found, targets, label, t) for label in labels)
        / len(labels)
        for t in thresholds
    }
    main = {"mAP": math.fsum(corpus.values()) / len(corpus)}
    return Scores(main | corpus, {}, {"metric": "mean average precision", "labels": len(labels), **info})


def _average_precision(
    found: Sequence[tuple[Any, Box, Any, float]],
    targets: Mapping[Any, Sequence[tuple[Box, Any]]],
    label: Any,
    threshold: float,
) -> float:
    total = sum(name == label for boxes in targets.values() for _, name in boxes)
    taken: set[tuple[Any, int]] = set()
    precision: list[float] = []
    recall: list[float] = []
    right = 0
    for key, box, name, _ in found:
        if name != label:
            continue
        free = [
            (box_iou(box, target), i)
            for i, (target, other) in enumerate(targets[key])
            if other == label and (key, i) not in taken
        ]
        best = max(free, key=lambda item: item[0], default=(0.0, -1))
        if best[1] >= 0 and is_hit(box, targets[key][best[1]][0], threshold, best[0]):
            taken.add((key, best[1]))
            right += 1
        precision.append(right / (len(precision) + 1))
        recall.append(right / total)
    area, ceiling = 0.0, 0.0
    for i in range(len(precision) - 1, -1, -1):
        ceiling = max(ceiling, precision[i])
        area += (recall[i] - (recall[i - 1] if i else 0.0)) * ceiling
    return area
