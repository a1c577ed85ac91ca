"""``unival predict CHECKPOINT INPUT...``: answers for a table, files, folders or globs, as JSON lines."""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.core.files import check_file, encoded, is_stream, make_folder, write_text
from unival.errors import ConfigError, DataError

if TYPE_CHECKING:
    from unival.evaluate.run import Evaluation
    from unival.specs import TaskSpec

TABLES = (".tsv", ".csv", ".jsonl", ".yaml", ".yml")
# what belongs to scoring a table
_NOT_HERE = (
    "train_table", "out", "metrics", "tokenizer", "document_frequencies", "limit", "protocol", "results",
    "java", "jars", "spice_jars", "java_limit", "allow_missing_media",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the inputs, then what prediction shares with evaluation (answers, decoding, device, sizes)."""
    from unival.cli import evaluate

    parser.add_argument("checkpoint", help="folder with config.json, a .pt file of a training run")
    parser.add_argument("inputs", nargs="+", help="one table, or media files, folders and globs")
    parser.add_argument("--text", "--question", help="the question or phrase asked about every file")
    parser.add_argument("--out", default="predictions.jsonl", metavar="FILE")
    evaluate.add_options(parser, skip=_NOT_HERE)


def run(args: argparse.Namespace) -> int:
    """Predict what is not predicted yet, then write every answer; exit code 1 when inputs were unreadable."""
    from unival.core.claim import claimed
    from unival.evaluate.processes import rank_and_size

    out = Path(args.out)
    check_file(out)
    if is_stream(out):  # nothing can be put beside a device or a pipe, and nothing is gone on with
        with tempfile.TemporaryDirectory(prefix="unival-predict-") as folder:
            return _predict(args, out, Path(folder) / "run")
    work = out.with_name(f"{out.name}.run")
    if args.shard is not None or rank_and_size()[1] > 1:  # several share the work on purpose
        return _predict(args, out, work)
    with claimed(out, file=True):
        return _predict(args, out, work)


def _predict(args: argparse.Namespace, out: Path, work: Path) -> int:
    """Predict into ``out`` by way of the folder ``work``, which goes when all is done."""
    from unival.cli.evaluate import request_of
    from unival.core.parts import to_line
    from unival.evaluate.runner import predict

    if args.restart:
        shutil.rmtree(work, ignore_errors=True)
    new = not work.exists()
    make_folder(work)
    try:
        request = request_of(
            args,
            table=_table(args, work),
            out=str(work),
            restart=False,  # it would discard the table of inputs as well
            scored=False,
            allow_missing_media=True,
        )
        predicted = predict(request)
    except BaseException:
        if new and not any((work / "parts").glob("*")):  # nothing is predicted that could be gone on with
            shutil.rmtree(work, ignore_errors=True)
        raise
    if predicted is None:
        return 0
    lines = list(_answers(predicted.evaluation))
    write_text(out, "".join(f"{to_line(line)}\n" for line in lines))
    broken = [line for line in lines if "error" in line]
    shutil.rmtree(work)
    print(f"{out}: {len(lines) - len(broken):,} predictions")
    if broken:
        print(f"unreadable: {len(broken):,}, the first: {broken[0]['error']}")
    return 1 if broken else 0


def _table(args: argparse.Namespace, work: Path) -> str:
    """Return the table to predict: the given one, or one made of the files."""
    from unival.specs import get_spec

    if len(args.inputs) == 1 and args.inputs[0].lower().endswith(TABLES):
        if args.text is not None:
            raise ConfigError("--text is for files; a table has a question or phrase of its own in every row")
        return str(args.inputs[0])
    task, modality = _asked(args)
    column = _column(get_spec(task))
    if (column is None) == (args.text is not None):
        wanted = "needs --text (what is asked about every file)" if column else "takes no --text"
        raise ConfigError(f"task '{task}' {wanted}")
    asked = {} if column is None else {column: args.text}
    rows = [{modality: _reference(file), **asked} for file in _files(args.inputs, modality)]
    table = work / "inputs.jsonl"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # an untouched file keeps its index and the identity of a run that goes on
    if not table.exists() or table.read_bytes() != encoded(text):
        write_text(table, text)
    return str(table)


def _reference(file: str) -> str:
    """A path as a table holds it: in a table a name without a dot would be base64."""
    from unival.media.names import absolute

    place = absolute(file)
    return place if "." in place else os.path.join(os.path.dirname(place), ".", os.path.basename(place))


def _asked(args: argparse.Namespace) -> tuple[str, str]:
    """Return task and modality: the command line's, else those the checkpoint was trained for."""
    from unival.checkpoint.catalogue import local_path
    from unival.checkpoint.header import Header
    from unival.specs import SPECS
    from unival.specs.reference import resolve_task

    trained = Header.read(local_path(args.checkpoint)).task
    name = args.task or trained.get("name")
    if name is None or name == "pretrain":
        raise ConfigError(
            f"--task is missing: one of {', '.join(filter(_on_files, SPECS))} (also video_caption, audio_caption, ...)"
        )
    task, modality = resolve_task(name, args.modality)
    if not _on_files(task):
        raise ConfigError(f"task '{task}' cannot be predicted on files; give a table with its columns")
    own = trained.get("modality") if trained.get("name") == task else None
    return task, modality or own or "image"


def _on_files(task: str) -> bool:
    """Whether a file and at most one text are all that a row of the task needs."""
    from unival.specs import get_spec

    spec = get_spec(task)
    return spec.reads_media and spec.answer is not None and len(spec.asked) < 2


def _column(spec: TaskSpec) -> str | None:
    """The field that --text fills."""
    return next((field.name for field in spec.asked), None)


def _files(inputs: list[str], modality: str) -> list[str]:
    """Return the files to predict: those named, and those of a folder whose name says the modality.

    What a folder holds beside them is counted on stderr.
    """
    from unival.media.names import absence, existing

    found: list[str] = []
    for name in inputs:
        place = existing(name)
        if place is None:
            within = sorted(glob.glob(name, recursive=True))
            if not within:
                raise DataError(f"no {modality} file there ({absence(name)})", path=name)
        else:
            within = _of_folder(place, modality) if os.path.isdir(place) else [place]
        found += within
    return list(dict.fromkeys(found))


def _of_folder(folder: str, modality: str) -> list[str]:
    from unival.media.endings import ENDINGS
    from unival.media.names import files_below

    names, hidden = files_below(folder)
    kinds = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in names)
    passed = {kind: count for kind, count in kinds.most_common() if kind not in ENDINGS[modality]}
    left = ", ".join(f"{count:,} {kind}" for kind, count in passed.items())
    left += f"{', ' if left and hidden else ''}{f'{hidden:,} hidden' if hidden else ''}"
    within = [name for name in names if os.path.splitext(name)[1].lower() in ENDINGS[modality]]
    if not within:
        holds = f"; it holds {left}" if left else ""
        raise DataError(f"no {modality} file there ({', '.join(ENDINGS[modality])}){holds}", path=folder)
    if left:
        print(f"{folder}: files that are no {modality} are passed over: {left}", file=sys.stderr)
    return [os.path.join(folder, name) for name in within]


def _answers(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield one line per item, in table order: id, media, text, the answer under its name, score; or error."""
    spec = evaluation.spec
    column, name = _column(spec), spec.answer.name if spec.answer else ""
    if not _on_files(spec.name):
        column, name = None, "prediction"
    found = evaluation.parts.read()
    for item in evaluation.items:
        row, record = evaluation.table[item.row], found[item.row]
        line: dict[str, Any] = {"id": item.id}
        media = row.get(spec.modality, None)
        if isinstance(media, str) and "." in media:
            line[spec.modality] = media.replace("/./", "/")
        if column is not None:
            line[column] = row.get(column, None)
        if "error" in record:
            yield {**line, "error": record["error"]}
        else:
            yield {**line, name: record["prediction"], "score": record["score"]}
