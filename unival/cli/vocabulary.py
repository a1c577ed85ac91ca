"""``unival data vocabulary``: train a vocabulary on one's own texts, or take the released one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from unival.core.files import check_folder
from unival.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the vocabulary comes from, how large it is and where it goes."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--train-on",
        action="extend",
        nargs="+",
        metavar="TABLE:COLUMN",
        help="learn a byte-level BPE from columns of tables; a column is a name, or a number from 0 in a "
        "table without header",
    )
    source.add_argument(
        "--released", metavar="BPE_DIR", help="folder with the released dict.txt, encoder.json, vocab.bpe"
    )
    parser.add_argument("--size", type=int, help="text pieces to learn (--train-on only; default: 8000)")
    parser.add_argument("--num-codes", type=int, default=8192, help="image codes (default: 8192)")
    parser.add_argument("--num-bins", type=int, default=1000, help="location bins (default: 1000)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write the vocabulary to")


def run(args: argparse.Namespace) -> int:
    """Write the vocabulary and print its size."""
    from unival.vocabulary.vocabulary import Vocabulary

    check_folder(args.out)
    if args.released:
        if args.size is not None:
            raise ConfigError(
                f"--size {args.size} goes with --train-on; the released vocabulary has its own size."
            )
        vocabulary = Vocabulary.released(args.released, args.num_codes, args.num_bins)
    else:
        size = 8000 if args.size is None else args.size
        if size < 256:
            raise ConfigError(f"--size is {size}; a byte-level vocabulary needs at least 256.")
        columns = [_parse(place) for place in args.train_on]
        vocabulary = Vocabulary.train(_texts(columns), size, args.num_codes, args.num_bins)
    vocabulary.save(args.out)
    text = vocabulary.mask - 4
    print(
        f"{args.out}: {len(vocabulary)} tokens (4 special, {text} text, <mask>, {vocabulary.num_codes} "
        f"codes, {vocabulary.num_bins} bins), fingerprint {vocabulary.fingerprint()[:12]}"
    )
    return 0


def _parse(place: str) -> tuple[str, str]:
    """Split TABLE:COLUMN at its last colon."""
    path, colon, column = place.rpartition(":")
    if not (colon and path and column):
        raise ConfigError(
            f"--train-on '{place}' is not TABLE:COLUMN, such as captions.tsv:caption or captions.tsv:2."
        )
    return path, column


def _texts(columns: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the texts of all columns and the task prompts.

    References joined by && are texts of their own; the confidence of an answer (``1.0|!+red``) is no text.
    """
    from unival.tables import open_table
    from unival.vocabulary.texts import prompt_texts, texts_of

    tables = [
        (open_table(path, header=False if column.isdecimal() else None, fields=(column,)), column)
        for path, column in columns
    ]
    yield from prompt_texts()
    for table, column in tables:
        for row in table:
            yield from texts_of(str(row[column]))
