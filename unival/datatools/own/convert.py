"""From other people's data to a folder that trains: tables per split, a vocabulary, a recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.core.files import Output
from unival.core.paths import recipes, root
from unival.datatools.own.report import MISSING, Report
from unival.datatools.own.rows import usable
from unival.datatools.own.sources import Request, read_source
from unival.datatools.own.split import SPLITS, assign
from unival.errors import ConfigError, DataError
from unival.specs import TaskSpec
from unival.specs.answers import one_answer
from unival.specs.base import is_absent

STARTER = Path("own_data/starter.yaml")  # below the shipped recipes


@dataclass
class Converted:
    """What was written: files by split with their rows, and what was left out."""

    tables: dict[str, tuple[Path, int]] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    vocabulary: Path | None = None
    recipe: Path | None = None


def convert(
    request: Request, out: Path, shares: Mapping[str, float], seed: int = 7, vocabulary_size: int = 4000
) -> Converted:
    """Write the source's records as JSON lines below ``out``, or as the one file ``out`` when it ends so.

    Media references become relative to ``out``'s folder. Rows that cannot be used (no medium, no target, values
    that are no text, boxes outside) are left out and counted in the result's report. A folder also gets a
    vocabulary trained on its texts and, where rows have targets, a recipe that starts from them.

    Raises:
        DataError: an unreadable source, or one with no row that can be used.
    """
    single = out.suffix.lower() == ".jsonl"
    folder = out.parent if single else out
    if "${" in str(folder.resolve()):
        raise ConfigError(f"--out {out}: recipes cannot name a folder with '${{'; give another")
    done = Converted()
    records = usable(read_source(request, done.report), request.spec, folder, done.report)
    if not records:
        raise DataError(_nothing(done.report), path=str(request.source))
    with Output() as output:
        if single:
            done.tables["all"] = (out, len(records))
            output.text(out, _lines(records))
        else:
            place = assign([str(r[request.spec.modality]) for r in records], shares, seed)
            for name in SPLITS:
                rows = [r for r in records if place[str(r[request.spec.modality])] == name]
                if rows:
                    done.tables[name] = (folder / f"{name}.jsonl", len(rows))
                    output.text(folder / f"{name}.jsonl", _lines(rows))
        output.commit()
    if not single:
        done.vocabulary = _vocabulary(request.spec, records, folder, vocabulary_size)
        if any(f.target and f.name in records[0] for f in request.spec.fields):
            done.recipe = _recipe(request.spec, folder, done.tables)
    return done


def _nothing(report: Report) -> str:
    """Say why a source gave no row."""
    missing = report.counts.get(MISSING)
    if missing and len(report.counts) == 1:
        first = report.examples[MISSING][0]
        return f"none of its {missing} media files is there (first: {first}); name their folder with --media"
    return f"none of its rows can be used: {report.first()}" if report.counts else "it has no rows"


def _lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _vocabulary(spec: TaskSpec, records: list[dict[str, Any]], folder: Path, size: int) -> Path:
    from unival.vocabulary.texts import prompt_texts, texts_of
    from unival.vocabulary.vocabulary import Vocabulary

    texts = list(prompt_texts())
    columns = [field.name for field in spec.fields if field.words]
    for record in records:
        for name in columns:
            value = record.get(name)
            for text in value if isinstance(value, list | dict) else [value]:
                if not is_absent(text):
                    texts += texts_of(one_answer(text))
    place = folder / "vocabulary"
    Vocabulary.train(texts, size, num_codes=0).save(place)
    return place


def _recipe(spec: TaskSpec, folder: Path, tables: Mapping[str, tuple[Path, int]]) -> Path | None:
    """Write the recipe of a first training; None where the shipped recipes are not at hand."""
    from unival.core.recipe import write_yaml
    from unival.specs.reference import REFERENCE_TASKS

    starter = recipes() / STARTER
    if not starter.is_file() or "val" not in tables:
        return None
    data = root("UNIVAL_DATA").resolve()
    place = folder.resolve()
    own = f"${{UNIVAL_DATA}}/{place.relative_to(data)}" if place.is_relative_to(data) else str(place)
    registered = {pair: name for name, pair in REFERENCE_TASKS.items()}
    content: dict[str, Any] = {
        "extends": os.path.relpath(starter, place),  # from the real folder, which a link may stand for
        "task": registered.get((spec.name, spec.modality), spec.name),
        "data": {"train": f"{own}/train.jsonl", "valid": f"{own}/val.jsonl"},
        "inputs": {"bpe_dir": f"{own}/vocabulary"},
        "checkpoint": {"save_dir": f"${{UNIVAL_OUT}}/{place.name}"},
    }
    networks: dict[str, dict[str, Any]] = {
        "video": {"model": {"video_encoder_name": "all_resnext14"}},
        "audio": {
            "model": {"audio_encoder_name": "pann_cnn6", "hop_size": 1024},
            "inputs": {"sample_rate": 32000, "max_audio_len": 160000},
        },
    }
    for section, values in networks.get(spec.modality, {}).items():
        content[section] = {**content.get(section, {}), **values}
    if len(spec.modalities) > 1 and (spec.name, spec.modality) not in registered:  # no name says the modality
        content["inputs"]["modality"] = spec.modality
    path = folder / "recipe.yaml"
    write_yaml(path, content)
    return path
