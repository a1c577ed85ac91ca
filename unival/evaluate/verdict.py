"""Has the model learnt anything? How many different predictions there are, and whether they beat the trivial ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_ROWS = 8  # of which equal predictions say something
_MOST, _LESS = (
    0.8,
    0.5,
)  # share of one prediction that is too much, unless the targets repeat at least so much
GUIDE = "docs/own-data.md says what to try"


def variety(predictions: Sequence[Any], references: Sequence[Any] = ()) -> dict[str, Any]:
    """Return ``different`` predictions, ``most_frequent`` one and its ``share``; empty for what is no text or box.

    ``targets``: the number of different targets, where there are some.
    """
    if not predictions or not all(p is None or isinstance(p, str | list | tuple) for p in predictions):
        return {}
    texts = Counter(one_text(prediction) for prediction in predictions)
    [(text, count)] = texts.most_common(1)
    found = {"different": len(texts), "most_frequent": text, "share": round(count / len(predictions), 4)}
    targets = Counter(one_text(reference) for reference in references if reference is not None)
    if targets:
        found["targets"] = len(targets)
        found["targets_share"] = round(targets.most_common(1)[0][1] / targets.total(), 4)
    return found


def collapsed(found: Mapping[str, Any], n: int) -> bool:
    """Whether (nearly) all of ``n`` predictions are one, while the targets are not."""
    if n < _ROWS or not found or found.get("targets", 2) < 2:
        return False
    alone = found["different"] == 1 and found.get("targets_share", 0.0) < 1.0
    return alone or (found["share"] >= _MOST and found.get("targets_share", 0.0) < _LESS * found["share"])


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of an evaluation beside its numbers: one line each, none where all is well.

    A score beats its baseline where its 95 % interval does not reach it.
    """
    found, name = result.get("predictions") or {}, result.get("main_metric", "")
    lines = []
    if collapsed(found, result["n"]):
        lines.append(
            f"collapsed: {percent(found['share'])} of the predictions are {shown(found['most_frequent'])}"
        )
    score, baseline = result["metrics"].get(name), (result.get("baseline") or {}).get(name)
    low, _ = (result.get("intervals") or {}).get(name) or (score, score)
    if low is not None and baseline is not None and low <= baseline:
        what = result.get("baseline_name") or "the trivial baseline"
        lines.append(f"not better than the baseline: {what} has {name} {baseline:.4g}")
    return lines


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def shown(text: str, limit: int = 60) -> str:
    """Return a prediction in quotes, its end left out where it is long."""
    return f"'{text}'" if len(text) <= limit else f"'{text[: limit - 3]}...'"


def one_text(value: Any) -> str:
    """One text per prediction or target; of several references the first, boxes in whole pixels."""
    if isinstance(value, Mapping):
        return str(max(value, key=value.__getitem__)) if value else ""
    if isinstance(value, list | tuple) and value and not isinstance(value[0], str):
        return ",".join(f"{number:.0f}" for number in value)
    if isinstance(value, list | tuple):
        return str(value[0]) if value else ""
    return "nothing" if value is None else str(value)
