"""The program ``unival``: one verb per module of this folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from unival import __version__
from unival.core.command import Parser, report_failure, show_any_text
from unival.errors import ConfigError, nearest, shortened

BROKEN_PIPE = 141  # as shells say it of a program that SIGPIPE ended

# verb -> (module, one-line help); modules offer add_arguments(parser) and run(args) -> exit code
VERBS = {
    "train": ("unival.cli.train", "train from a YAML recipe"),
    "doctor": ("unival.cli.doctor", "say what is installed and what is missing"),
    "plan": ("unival.cli.plan", "say what a recipe will take: updates, effective batch, memory, time"),
    "evaluate": ("unival.cli.evaluate", "predict a table and score it"),
    "predict": ("unival.cli.predict", "answer for a table, files or folders"),
    "score": ("unival.cli.score", "score saved predictions"),
    "compare": ("unival.cli.compare", "test whether two evaluations differ beyond chance"),
    "reproduce": ("unival.cli.reproduce", "evaluate a released checkpoint against its published score"),
    "merge": ("unival.cli.merge", "merge finetuned weights; sweep coefficients; chains of finetunings"),
    "convert": (
        "unival.cli.convert",
        "turn a checkpoint into a folder, an engine file or a Hugging Face folder",
    ),
    "download": ("unival.cli.download", "fetch a released checkpoint"),
    "demo": ("unival.cli.demo", "try a model in the browser"),
    "serve": ("unival.cli.serve", "offer a model as a JSON service"),
    "report": ("unival.cli.report", "table, curves and picture page of evaluated runs"),
}
DATA_VERBS = {
    "sample": ("unival.cli.sample", "render the sample world"),
    "clip": ("unival.cli.clip", "train a small CLIP on pictures and captions"),
    "codebook": ("unival.cli.codebook", "train a VQGAN on pictures"),
    "codes": ("unival.cli.codes", "turn pictures into image codes"),
    "fid-statistics": (
        "unival.cli.fid_statistics",
        "take the statistics of real pictures that FID compares with",
    ),
    "vocabulary": ("unival.cli.vocabulary", "train a vocabulary or install the released one"),
    "convert": (
        "unival.cli.data_convert",
        "turn a folder, COCO JSON or WebDataset tars into tables that train",
    ),
    "validate": ("unival.cli.data_validate", "check every row of a table and decode a sample"),
    "show": ("unival.cli.data_show", "write a page of decoded rows"),
    "split": ("unival.cli.data_split", "split a table by its media"),
    "index": ("unival.cli.data_index", "build the indexes of tables"),
    "features": ("unival.cli.data_features", "list or delete kept features of frozen networks"),
    "prepare": ("unival.cli.prepare", "make tables from a corpus's official annotation files"),
    "compress": ("unival.cli.compress", "shrink videos to few frames a second, take out their sound"),
}


def _parser() -> Parser:
    parser = Parser(prog="unival", description="Train, evaluate and use UnIVAL models.")
    parser.add_argument("--version", action="version", version=f"unival {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, text) in VERBS.items():
        verbs.add_parser(name, help=text, description=text, add_help=name not in ("train", "plan"))
    data = verbs.add_parser("data", help="prepare data", description="Prepare data.")
    data_verbs = data.add_subparsers(dest="data_verb", metavar="VERB", required=True)
    for name, (_, text) in DATA_VERBS.items():
        data_verbs.add_parser(name, help=text, description=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    What the user can mend is said in one line on standard error (exit code 2). 130 after Ctrl-C, 141 when whoever
    read the output went away. A traceback is a fault of the program.
    """
    show_any_text()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_output()
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        return report_failure(error)
    return code


def _run(arguments: list[str]) -> int:
    table, words = VERBS, arguments[:1]
    if words == ["data"]:
        table, words = DATA_VERBS, arguments[1:2]
    if not words or words[0].startswith("-") or words[0] not in table:
        if words and not words[0].startswith("-") and words != ["data"]:
            near = nearest(words[0], [*table, "data"])
            raise ConfigError(f"unknown verb '{shortened(words[0], 80)}'.{near}")
        _parser().parse_args(arguments)
        return 2
    verb = words[0]
    rest = arguments[arguments.index(verb) + 1 :]
    module = import_module(table[verb][0])
    parser = verb_parser(verb, table)
    if getattr(module, "PASSES_OPTIONS", False):
        args, extra = parser.parse_known_args(rest)
        return int(module.run(args, extra))
    return int(module.run(parser.parse_args(rest)))


def verb_parser(verb: str, table: Mapping[str, tuple[str, str]]) -> Parser:
    """Return the parser of one verb of VERBS or DATA_VERBS."""
    name, text = table[verb]
    prefix = "unival data" if table is DATA_VERBS else "unival"
    parser = Parser(prog=f"{prefix} {verb}", description=text, allow_abbrev=False)
    import_module(name).add_arguments(parser)
    return parser


def _let_go_of_output() -> None:
    """Keep the interpreter from complaining, at its end, of the reader that is gone."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # standard output is no descriptor
        return
