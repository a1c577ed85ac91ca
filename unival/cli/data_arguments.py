"""Arguments that the verbs on tables share: the table, its task, where its media are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from unival.core.modalities import NAMES

if TYPE_CHECKING:
    from unival.specs import TaskSpec
    from unival.tables import Table
    from unival.vocabulary.vocabulary import Vocabulary


TABLE = "a table (.tsv, .csv, .jsonl, .parquet, .arrow, .tar, a saved folder) or a table description (.yaml)"


def add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", required=True, help="caption, vqa, grounding, entailment, matching, ...; also video_caption"
    )
    parser.add_argument("--modality", choices=NAMES, help="default: the task's own")


def add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help=TABLE)
    add_task(parser)
    parser.add_argument("--image-dir", metavar="FOLDER", help="folder or .tar that media paths start from")
    parser.add_argument("--selected-cols", help="columns of a TSV without header, e.g. 0,4,2")


def spec_of(args: argparse.Namespace) -> TaskSpec:
    """Return the task description; names of training (``video_vqa_gen``, ``refcoco``) count too."""
    from unival.specs import get_spec
    from unival.specs.reference import resolve_task

    name, modality = resolve_task(args.task, args.modality)
    return get_spec(name, modality or "image")


def table_of(args: argparse.Namespace, spec: TaskSpec) -> Table:
    """Open the table that the arguments name."""
    from unival.tables import open_table

    return open_table(
        args.table, spec.fields, spec.layout_name, args.selected_cols, media_root=args.image_dir
    )


def vocabulary_of(folder: str | Path | None) -> Vocabulary:
    """Read a vocabulary, or make one of bytes and prompts, which is enough to check rows with."""
    from unival.vocabulary.texts import prompt_texts
    from unival.vocabulary.vocabulary import Vocabulary

    return Vocabulary.load(folder) if folder else Vocabulary.train(prompt_texts(), 512)
