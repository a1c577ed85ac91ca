"""From other people's data to a folder that trains: tables per split, a vocabulary, a recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unival.core.files import Output
from unival.core.paths import recipes, root
from unival.datatools.own.backbone import Backbone, starting_backbone
from unival.datatools.own.choices import Choices, choose
from unival.datatools.own.labels import lowered, one_case, with_labels
from unival.datatools.own.parts import COLUMN, parts_of
from unival.datatools.own.report import MISSING, Report
from unival.datatools.own.request import Request
from unival.datatools.own.rows import decodable, usable
from unival.datatools.own.sources import read_source
from unival.errors import ConfigError, DataError
from unival.specs import TaskSpec
from unival.specs.answers import one_answer
from unival.specs.base import is_absent
from unival.vocabulary.vocabulary import Vocabulary

STARTER, PRETRAINED = (
    Path("own_data/starter.yaml"),
    Path("own_data/pretrained.yaml"),
)  # below the shipped recipes


@dataclass(frozen=True)
class How:
    """What is asked of a conversion beside its source.

    ``by``: the field or column whose equal values stay in one part. ``vocabulary``: a folder that is used in place of
    a vocabulary of these texts, so that models of several tasks can be merged. ``labels``: value -> label.
    ``lowercase``: targets in small letters. ``backbone``: the image network to start from (default: one at hand).
    """

    by: str | None = None
    vocabulary: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    lowercase: bool = False
    backbone: Backbone | None = None


@dataclass
class Converted:
    """What was written: files by split with their rows, what was left out, and what was chosen for the recipe."""

    tables: dict[str, tuple[Path, int]] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    vocabulary: Path | None = None
    recipe: Path | None = None
    choices: list[str] = field(default_factory=list)


def convert(
    request: Request,
    out: Path,
    shares: Mapping[str, float],
    seed: int = 7,
    vocabulary_size: int = 4000,
    how: How = How(),
) -> Converted:
    """Write the source's records as JSON lines below ``out``, or as the one file ``out`` when it ends so.

    Media references become relative to ``out``'s folder. Rows that cannot be used (no medium, no target, values
    that are no text, boxes outside, a caption without a word, media that cannot be decoded) are left out and
    counted in the result's report. A folder also gets a vocabulary trained on its texts and, where rows have targets,
    a recipe whose sizes and epochs are chosen from them.

    Raises:
        DataError: an unreadable source, or one with no row that can be used.
    """
    single = out.suffix.lower() == ".jsonl"
    folder = out.parent if single else out
    if "${" in str(folder.resolve()):
        raise ConfigError(f"--out {out}: recipes cannot name a folder with '${{'; give another")
    done, spec = Converted(), request.spec
    keep = tuple(name for name in (COLUMN, how.by) if name)
    rows = with_labels(
        list(read_source(replace(request, keep=keep), done.report)), spec, how.labels, done.report
    )
    records = usable(rows, spec, folder, done.report)
    records = decodable(records, spec, folder, done.report)
    if not records:
        raise DataError(_nothing(done.report), path=str(request.source))
    targets = [f.name for f in spec.fields if f.target]
    if how.lowercase:
        records = [{n: lowered(v) if n in targets else v for n, v in r.items()} for r in records]
    if spec.name in ("caption", "vqa"):
        done.report.remarks += one_case(records, targets, how.lowercase)
    parts = {"all": records} if single else parts_of(records, spec, how.by, shares, seed, done.report)
    with Output() as output:
        for name, kept in parts.items():
            path = out if single else folder / f"{name}.jsonl"
            done.tables[name] = (path, len(kept))
            output.text(path, _lines(kept))
        output.commit()
    if not single:
        done.vocabulary = how.vocabulary or _vocabulary(spec, records, folder, vocabulary_size)
        if any(name in records[0] for name in targets):
            vocabulary = Vocabulary.load(done.vocabulary)
            backbone = (
                starting_backbone(how.backbone) if spec.modality == "image" and spec.reads_media else None
            )
            choices = choose(spec, parts, folder, vocabulary, pretrained=backbone is not None)
            if backbone is not None:
                choices.add("model", backbone.said, **backbone.options)
            done.choices = choices.said
            starter = recipes() / (STARTER if backbone is None else PRETRAINED)
            done.recipe = _recipe(spec, folder, done.tables, done.vocabulary, choices, starter)
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


def _recipe(
    spec: TaskSpec,
    folder: Path,
    tables: Mapping[str, tuple[Path, int]],
    vocabulary: Path,
    choices: Choices,
    starter: Path,
) -> Path | None:
    """Write the recipe of a first training; None where the shipped recipes are not at hand."""
    from unival.core.recipe import write_yaml
    from unival.specs.reference import REFERENCE_TASKS

    if not starter.is_file() or "val" not in tables:
        return None
    place = folder.resolve()
    own = _named(place)
    registered = {pair: name for name, pair in REFERENCE_TASKS.items()}
    content: dict[str, Any] = {
        "extends": os.path.relpath(starter, place),  # from the real folder, which a link may stand for
        "task": registered.get((spec.name, spec.modality), spec.name),
        "data": {"train": f"{own}/train.jsonl", "valid": f"{own}/val.jsonl"},
        "inputs": {"bpe_dir": _named(vocabulary.resolve())},
        "checkpoint": {"save_dir": f"${{UNIVAL_OUT}}/{place.name}"},
    }
    networks = {
        "video": {"video_encoder_name": "all_resnext14"},
        "audio": {"audio_encoder_name": "pann_cnn6"},
    }
    if spec.modality in networks:
        content["model"] = networks[spec.modality]
    for section, values in choices.options.items():
        content[section] = {**content.get(section, {}), **values}
    if len(spec.modalities) > 1 and (spec.name, spec.modality) not in registered:  # no name says the modality
        content["inputs"]["modality"] = spec.modality
    path = folder / "recipe.yaml"
    write_yaml(path, content)
    return path


def _named(place: Path) -> str:
    """Return a path as recipes name it: from UNIVAL_DATA where it lies below."""
    data = root("UNIVAL_DATA").resolve()
    return f"${{UNIVAL_DATA}}/{place.relative_to(data)}" if place.is_relative_to(data) else str(place)
