"""Predict a table and score it: sharded, resumable, the same on one process and on many."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unival.batch import collate
from unival.errors import ConfigError, DataError
from unival.inference import Inference, Prediction
from unival.media import MediaError, MediaLoader
from unival.specs import SpecOptions, TaskSpec
from unival.tables import Row, Table
from unival.vocabulary import Vocabulary

SHOWN = 12  # items kept in the result for the picture page


@dataclass(frozen=True)
class Settings:
    """How to evaluate. ``shard`` of ``num_shards`` processes handles every num_shards-th row."""

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


class Evaluation:
    """Predictions of one checkpoint on one table, kept in a folder.

    Each process appends to ``predictions.<shard>-of-<n>.jsonl`` as batches finish. A run that was
    killed goes on where it stopped, with any number of processes. ``run.json`` holds what identifies
    the run; a folder of another run is refused.
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
    ) -> None:
        self.model, self.vocabulary, self.spec = model, vocabulary, spec
        self.table, self.options, self.folder, self.settings = table, options, folder, settings
        self.inference = Inference(spec, options, vocabulary, settings.decoding, settings.mode)
        self.media = MediaLoader(table.media_root, str(Path(table.path).parent))
        self.identity = {**identity, "decoding": self.inference.describe(), "limit": settings.limit}
        self.size = len(table) if settings.limit is None else min(settings.limit, len(table))

    def predict(self, progress: Any = iter) -> None:
        """Predict the rows of this shard that no process has predicted yet.

        ``progress`` wraps the iterator over batches (a progress bar).

        Raises:
            ConfigError: the folder belongs to another run.
            MediaError: unreadable media, unless ``allow_missing_media``.
        """
        self._claim()
        done = {record["row"] for record in read_parts(self.folder)}
        rows = [row for row in range(self.settings.shard, self.size, self.settings.num_shards) if row not in done]
        chunks = [rows[i : i + self.settings.batch_size] for i in range(0, len(rows), self.settings.batch_size)]
        loader = torch.utils.data.DataLoader(
            _Rows(self, chunks), batch_size=None, num_workers=self.settings.num_workers
        )
        path = self.folder / f"predictions.{self.settings.shard}-of-{self.settings.num_shards}.jsonl"
        _end_with_newline(path)
        self.model.eval()
        with open(path, "a", encoding="utf-8") as file:
            for rows_read, batch, broken in progress(loader):
                records = [{"row": row, "id": name, "error": reason} for row, name, reason in broken]
                if batch:
                    predictions = self.inference(self.model, _to(batch, self.settings))
                    records += [
                        {"row": row, **_record(prediction)}
                        for row, prediction in zip(rows_read, predictions, strict=True)
                    ]
                for record in records:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()

    def finish(self) -> dict[str, Any]:
        """Merge all parts and score them.

        Returns the result that is also written to ``result.json``; predictions go to
        ``predictions.jsonl``, sorted by row.

        Raises:
            DataError: rows without a prediction (coverage below 100 %) unless missing media is allowed.
        """
        records = {record["row"]: record for record in read_parts(self.folder) if record["row"] < self.size}
        absent = self.size - len(records)
        broken = [record for record in records.values() if "error" in record]
        if absent:
            raise DataError(f"{absent} of {self.size} rows have no prediction yet; run the other shards, then again")
        if broken and not self.settings.allow_missing_media:
            raise DataError(
                f"{len(broken)} of {self.size} rows have unreadable media, the first: {broken[0]['id']}: "
                f"{broken[0]['error']}. Mend them, or allow a coverage below 100 % with --allow-missing-media."
            )
        kept = [records[row] for row in sorted(records) if "error" not in records[row]]
        ids = [record["id"] for record in kept]
        references = [self.spec.reference(self.table[record["row"]], self.options) for record in kept]
        outputs = [tuple(r["prediction"]) if isinstance(r["prediction"], list) else r["prediction"] for r in kept]
        scored = bool(kept) and all(reference is not None for reference in references)
        metrics = self.spec.score(outputs, references, self.options, ids) if scored else {}
        _write_atomically(
            self.folder / "predictions.jsonl",
            "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept),
        )
        result: dict[str, Any] = {
            "task": self.spec.name,
            "modality": self.spec.modality,
            **self.identity,
            "n": len(kept),
            "coverage": len(kept) / max(self.size, 1),
            "main_metric": self.spec.best_metric,
            "metrics": metrics,
            "versions": versions(),
            "items": [self._item(record) for record in kept[:: max(1, len(kept) // SHOWN)][:SHOWN]],
        }
        return result

    def baseline(self, train: Table) -> dict[str, float]:
        """Score of the trivial predictor fitted on ``train``, on the rows evaluated here."""
        return self.spec.baseline(train, (self.table[row] for row in range(self.size)), self.options, self.media)

    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "run.json"
        mine = json.dumps(self.identity, sort_keys=True, default=str)
        if path.is_file():
            theirs = path.read_text(encoding="utf-8")
            if theirs != mine and any(self.folder.glob("predictions.*-of-*.jsonl")):
                changed = sorted(
                    key
                    for key in {**json.loads(theirs), **self.identity}
                    if json.dumps(json.loads(theirs).get(key), default=str, sort_keys=True)
                    != json.dumps(self.identity.get(key), default=str, sort_keys=True)
                )
                raise ConfigError(
                    f"{self.folder} holds predictions of another run (different: {', '.join(changed)}). "
                    "Give another --out, or --restart to discard them."
                )
        _write_atomically(path, mine)

    def _item(self, record: Mapping[str, Any]) -> dict[str, Any]:
        row: Row = self.table[record["row"]]
        item: dict[str, Any] = {"id": record["id"], "prediction": record["prediction"], "score": record["score"]}
        item["media"] = row.get(self.spec.modality, None)
        item["media_root"], item["table_dir"] = self.table.media_root, str(Path(self.table.path).parent.resolve())
        for name in ("question", "text", "hypothesis"):
            if row.get(name, None):
                item["question"] = row[name]
        reference = self.spec.reference(row, self.options)
        if isinstance(record["prediction"], list):
            item["box"], item["true_box"] = record["prediction"], reference
        item["references"] = reference
        return item


class _Rows(torch.utils.data.Dataset[Any]):
    """Collated batches for the loader: (row numbers, batch, unreadable rows)."""

    def __init__(self, evaluation: Evaluation, chunks: list[list[int]]) -> None:
        self.table, self.spec, self.media = evaluation.table, evaluation.spec, evaluation.media
        self.options, self.vocabulary = evaluation.options, evaluation.vocabulary
        self.allow = evaluation.settings.allow_missing_media
        self.chunks = chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> tuple[list[int], dict[str, Any], list[tuple[int, str, str]]]:
        rows, examples, broken = [], [], []
        for number in self.chunks[index]:
            row = self.table[number]
            try:
                prepared = self.spec.examples(row, self.media, self.options, self.vocabulary, None, training=False)
            except MediaError as error:
                if not self.allow:
                    raise DataError(
                        f"{error}. Evaluation never replaces media; mend the file, or allow a coverage "
                        "below 100 % with --allow-missing-media.",
                        path=row.path,
                        line=row.line,
                    ) from error
                broken.append((number, f"{row.path}:{row.line}", str(error)))
                continue
            rows.append(number)
            examples.append(prepared[0])
        return rows, collate(examples, pad=self.vocabulary.pad), broken


def _record(prediction: Prediction) -> dict[str, Any]:
    output = prediction.output
    return {
        "id": prediction.id,
        "prediction": list(output) if isinstance(output, tuple) else output,
        "score": round(prediction.score, 6),
    }


def read_parts(folder: Path) -> Iterator[dict[str, Any]]:
    """Records of all part files; a line torn by a kill is passed over."""
    for path in sorted(folder.glob("predictions.*-of-*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                yield record


def _end_with_newline(path: Path) -> None:
    if path.is_file() and path.stat().st_size:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _to(batch: dict[str, Any], settings: Settings) -> dict[str, Any]:
    dtype = getattr(torch, settings.dtype)

    def move(name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(settings.device)
        return value.to(dtype) if value.is_floating_point() and name != "patch_audios" else value

    moved = {name: move(name, value) for name, value in batch.items()}
    moved["net_input"] = {name: move(name, value) for name, value in batch["net_input"].items()}
    return moved


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's weights and configuration."""
    digest = hashlib.sha256()
    files: Iterable[Path] = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("unival", "torch", "torchvision", "timm", "av", "Pillow", "numpy", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``result.json`` with the time of writing; returns its path."""
    path = folder / "result.json"
    stamped = {**result, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    _write_atomically(path, json.dumps(stamped, indent=1, ensure_ascii=False, default=str))
    return path
