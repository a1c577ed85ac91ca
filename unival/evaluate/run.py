"""Predict a table and score it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unival.batching.batch import collate, to_device
from unival.batching.loading import EpochLoader
from unival.batching.reading import Reading
from unival.core.files import write_text
from unival.core.parts import Parts, to_line
from unival.core.provenance import versions
from unival.errors import ConfigError, DataError, UnivalError, nearest
from unival.evaluate.bootstrap import RESAMPLES, SEED, intervals
from unival.evaluate.items import Item, gather, shown
from unival.evaluate.scoring import Scoring, check, check_answers, main_metric, score_predictions
from unival.evaluate.verdict import variety
from unival.media import MediaError
from unival.predict.inference import Inference, Prediction
from unival.specs import SpecOptions, TaskSpec
from unival.specs.preparation import prepare_row
from unival.tables import Table
from unival.vocabulary.vocabulary import Vocabulary

FEW = 8  # unreadable items from which a share is given up early, when they are the majority
DIGITS = 4  # of a log-probability: below the noise of another batch shape

Progress = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True)
class Settings:
    """How to evaluate. Batch k is predicted by process k mod ``num_shards``, so that a batch holds the same
    rows whatever the number of processes. Without ``scored`` the targets of the table are not looked at."""

    batch_size: int = 16
    limit: int | None = None
    num_workers: int = 0
    shard: int = 0
    num_shards: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    allow_missing_media: bool = False
    decoding: Mapping[str, Any] = field(default_factory=dict)
    mode: str | None = None
    scored: bool = True
    scoring: Scoring = field(default_factory=Scoring)
    main_metric: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_shards", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.shard < self.num_shards:
            raise ConfigError(
                f"shard {self.shard} of {self.num_shards}: shards count from 0 to {self.num_shards - 1}"
            )


class Evaluation:
    """Predictions of one model on one table, kept in a folder.

    ``identity`` is what decides the predictions, besides the options and decoding settings (hashes of
    checkpoint and data, precision); a folder of another identity is refused. ``about`` joins the result.
    Raises ConfigError when a metric or mode cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        vocabulary: Vocabulary,
        spec: TaskSpec,
        table: Table,
        options: SpecOptions,
        folder: Path,
        identity: Mapping[str, Any],
        settings: Settings,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.vocabulary, self.spec = model, vocabulary, spec
        self.table, self.options, self.settings = table, options, settings
        self.inference = Inference(spec, options, vocabulary, settings.decoding, settings.mode)
        self.media = table.loader()
        self.parts = Parts(Path(folder))
        self.identity = {
            "task": spec.name,
            "modality": spec.modality,
            **identity,
            "decoding": self.inference.describe(),
        }
        self.about = dict(about or {})
        check(spec, options, settings.scoring)

    @cached_property
    def items(self) -> list[Item]:
        """What is predicted: rows, or groups of rows about one image; the first ``limit`` of them.

        Raises DataError for a row whose target cannot be read.
        """
        return gather(self.spec, self.table, self.options, self.settings.limit, self.settings.scored)

    def claim(self) -> None:
        """Check all targets and make the folder this run's; call once before the first process predicts."""
        without = sum(item.reference is None for item in self.items)
        if self.settings.scored and 0 < without < len(self.items):
            names = [item.id for item in self.items if item.reference is None][:5]
            raise DataError(
                f"{without} of {len(self.items)} items carry no target to score against, such as "
                f"{', '.join(names)}. Fill them in, or remove the column to predict only.",
                path=self.table.path,
            )
        if not without:
            ids, answers = [item.id for item in self.items], [item.raw_answers for item in self.items]
            check_answers(self.spec, self.options, ids, answers)
        self.parts.claim(self.identity)

    def predict(self, progress: Progress = iter) -> None:
        """Predict the share of this process, but for what is already predicted.

        ``progress`` wraps the iterator over batches. Unreadable media are noted and stop the share early only
        when they are the majority. Raises DataError for bad rows.
        """
        settings = self.settings
        done = {row for row, record in self.parts.read().items() if "error" not in record}
        rows = [item.row for item in self.items]
        batches = [rows[i : i + settings.batch_size] for i in range(0, len(rows), settings.batch_size)]
        mine = [b for b in batches[settings.shard :: settings.num_shards] if not done.issuperset(b)]
        numbers = [[(0, 0, number)] for number in range(len(mine))]
        loader = EpochLoader(_Batches(self, mine), numbers, _the_only, settings.num_workers)
        read = unreadable = 0
        self.model.eval()
        with self.parts.open(settings.shard, settings.num_shards) as file:
            for prepared in progress(loader):
                if isinstance(prepared, UnivalError):
                    raise prepared
                good, batch, records = prepared
                if batch:
                    found = self.inference(self.model, to_device(batch, settings.device, settings.dtype))
                    records = records + [_record(row, p) for row, p in zip(good, found, strict=True)]
                self.parts.append(file, [record for record in records if record["row"] not in done])
                read, unreadable = read + len(records), unreadable + len(records) - len(good)
                if unreadable >= FEW and 2 * unreadable > read and not settings.allow_missing_media:
                    raise DataError(
                        f"{unreadable} of the first {read} items have unreadable media, such as "
                        f"{records[0].get('error')}. Is the media folder right (--image-dir)?"
                    )

    def finish(self) -> dict[str, Any]:
        """Merge all parts into ``predictions.jsonl``, score them, and return the result.

        Per-item scores go to ``scores.jsonl``. Raises DataError for items without a prediction, and for
        coverage below 100 % unless that is allowed.
        """
        found = self.parts.read()
        absent = [item for item in self.items if item.row not in found]
        broken = [item for item in self.items if "error" in found.get(item.row, ())]
        kept = [item for item in self.items if item.row in found and "error" not in found[item.row]]
        records = [found[item.row] for item in kept]
        self.parts.merge(records)
        if absent:
            raise DataError(
                f"{len(absent)} of {len(self.items)} items have no prediction yet; start the same command "
                "again: only these are predicted"
            )
        if broken and not self.settings.allow_missing_media:
            first = found[broken[0].row]["error"]
            raise DataError(
                f"{len(broken)} of {len(self.items)} items have unreadable media, the first: {first}. "
                "Evaluation never replaces media: mend them and start again (only these are predicted), or "
                "score the others with --allow-missing-media."
            )
        scores, marks = self._scores(kept, records)
        result = {
            **self.about,
            **self.identity,
            "options": _plain(self.identity.get("options", {})),
            "n": len(kept),
            "coverage": len(kept) / max(len(self.items), 1),
            "limit": self.settings.limit,
            "unreadable": [found[item.row]["error"] for item in broken[:20]],
            "batch_size": self.settings.batch_size,
            "device": self.settings.device,
            **scores,
            "predictions": variety(
                [record["prediction"] for record in records], [item.reference for item in kept]
            ),
            "versions": versions(),
            "media_root": os.path.abspath(self.media.root or self.media.table_dir or "."),
            "items": [
                shown(self.spec, self.table, item, found[item.row]) | marks.get(item.row, {})
                for item in _spread(kept)
            ],
        }
        return result

    def baselines(self, train: Table) -> dict[str, dict[str, float]]:
        """Scores of the trivial predictors fitted on ``train``, by name, on the items that have predictions."""
        found = self.parts.read()
        rows = [
            row
            for item in self.items
            if "error" not in found.get(item.row, {"error": ""})
            for row in item.rows
        ]
        return self.spec.baselines(train, [self.table[row] for row in rows], self.options, self.media)

    def best_possible(self) -> dict[str, float]:
        """Score of the best outputs that the references of the items with predictions hold."""
        found = self.parts.read()
        kept = [item for item in self.items if "error" not in found.get(item.row, {"error": ""})]
        references = [item.reference for item in kept]
        outputs = self.spec.best_outputs(references)
        return self.spec.score(outputs, references, self.options, [item.id for item in kept])

    def _scores(
        self, kept: list[Item], records: list[dict[str, Any]]
    ) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        """Return what goes into the result, and for each row what its picture is marked with."""
        if not kept or kept[0].reference is None:
            without = {
                "main_metric": self.spec.best_metric,
                "metrics": {},
                "scoring": {"skipped": "no targets"},
            }
            return without, {}
        scored = score_predictions(
            self.spec,
            [tuple(p) if isinstance(p := record["prediction"], list) else p for record in records],
            [item.reference for item in kept],
            self.options,
            [item.id for item in kept],
            self.settings.scoring,
            [item.raw_answers for item in kept],
        )
        lines = [
            {
                "row": item.row,
                "id": item.id,
                **{name: round(float(v[k]), 6) for name, v in scored.per_item.items()},
            }
            | ({"bleu_counts": scored.counts[k].astype(int).tolist()} if scored.counts is not None else {})
            for k, item in enumerate(kept)
        ]
        write_text(self.parts.folder / "scores.jsonl", "".join(f"{to_line(line)}\n" for line in lines))
        marks = {item.row: _mark(self.spec, scored.per_item, k) for k, item in enumerate(kept)}
        main = self.settings.main_metric or main_metric(self.spec, self.options, scored.metrics)
        if main not in scored.metrics:
            raise ConfigError(
                f"--main-metric {main}: computed are {', '.join(scored.metrics)}.{nearest(main, scored.metrics)} The "
                "predictions are kept"
            )
        return {
            "main_metric": main,
            "metrics": scored.metrics,
            "intervals": intervals(scored.metrics, scored.per_item, scored.counts),
            "bootstrap": {
                "level": 0.95,
                "resamples": RESAMPLES,
                "seed": SEED,
                "unit": "item, document frequencies fixed",
            },
            "protocol": self.options.protocol,
            "scoring": {**self.settings.scoring.described(), **scored.info}
            if self.spec.joins_ids
            else scored.info,
        }, marks


class _Batches(torch.utils.data.Dataset[Any]):
    """Collated batches: (rows, batch, records of unreadable rows), or the error of a bad row."""

    media_timeout = 0.0

    def __init__(self, evaluation: Evaluation, batches: list[list[int]]) -> None:
        self.reading = Reading(evaluation.settings.num_workers)
        self.given_up: set[tuple[int, int, int]] = set()
        self.table, self.spec, self.media = evaluation.table, evaluation.spec, evaluation.media
        self.options, self.vocabulary, self.batches = evaluation.options, evaluation.vocabulary, batches

    def place(self, item: tuple[int, int, int]) -> str:
        rows = self.batches[item[2]]
        return f"{self.table.path}, rows {rows[0] + 1} to {rows[-1] + 1}"

    def __getitem__(self, item: tuple[int, int, int]) -> Any:
        self.reading.begin(item)
        try:
            if item in self.given_up:
                return DataError(f"{self.place(item)}: data workers that read them died twice; see above")
            return self._batch(self.batches[item[2]])
        finally:
            self.reading.end()

    def _batch(
        self, numbers: list[int]
    ) -> tuple[list[int], dict[str, Any], list[dict[str, Any]]] | UnivalError:
        rows, examples, broken = [], [], []
        for number in numbers:
            try:
                row = self.table[number]
                [example, *_] = prepare_row(
                    self.spec,
                    row,
                    number,
                    self.media,
                    self.options,
                    self.vocabulary,
                    seed=self.options.seed,
                )
            except MediaError as error:
                place = row.place
                broken.append({"row": number, "id": self.spec.item_id(row), "error": f"{place}: {error}"})
            except UnivalError as error:
                return error  # an exception in a worker would arrive wrapped in its traceback
            else:
                rows.append(number)
                examples.append(example)
        return rows, collate(examples, pad=self.vocabulary.pad), broken


def _the_only(batches: list[Any]) -> Any:
    return batches[0]


def _record(row: int, prediction: Prediction) -> dict[str, Any]:
    output = prediction.output
    return {
        "row": row,
        "id": prediction.id,
        "prediction": list(output) if isinstance(output, tuple) else output,
        "score": round(prediction.score, DIGITS),
    }


def _mark(spec: TaskSpec, per_item: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Say of an item whether it is right; of a caption that equals no reference only what it is worth."""
    if spec.joins_ids:
        worth = {"cider": round(float(per_item["cider"][k]), 3)} if "cider" in per_item else {}
        return {"right": True} | worth if per_item["exact"][k] else worth
    right = per_item.get(spec.right_metric or "")
    return {} if right is None else {"right": bool(right[k])}


def _spread(items: list[Item], count: int = 12) -> list[Item]:
    """At most ``count`` items from all over the table, for the picture page."""
    return items[:: max(1, len(items) // count)][:count]


def _plain(options: Any) -> Any:
    return {name: value for name, value in options.items() if value not in (None, {})} if options else options


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``result.json`` with the time of writing; returns its path."""
    path = folder / "result.json"
    stamped = {**result, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_text(path, json.dumps(stamped, indent=1, ensure_ascii=False, default=str) + "\n")
    return path
