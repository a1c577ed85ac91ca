"""``unival data prepare CORPUS``: from official annotation files to tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unival.core.files import check_folder
from unival.errors import ConfigError

PRETRAIN = "pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one sub-command per corpus, made from its declaration, and ``pretrain``."""
    from unival.datatools.corpora import CORPORA, get_corpus

    parsers = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True)
    for name in CORPORA:
        corpus = get_corpus(name)
        sub = parsers.add_parser(name, help=corpus.title, description=corpus.title, allow_abbrev=False)
        _common(sub)
        add = sub.add_argument
        add("--annotations", metavar="FOLDER", help="folder with the official files")
        for source in corpus.sources:
            text = f"{source.file}{f': {source.help}' if source.help else ''}"
            add(f"--{source.name}", metavar="FILE", help=text if source.required else f"{text} (optional)")
        for option in corpus.options:
            add(
                f"--{option.name}",
                type=type(option.default),
                default=option.default,
                choices=option.choices or None,
                help=f"{option.help} (default: {option.default})",
            )
        add("--media-root", metavar="PLACE", help="folder or .tar with the media (default: the data root)")
        for place, template in {"": corpus.media, **corpus.roots}.items():
            before = f"{place}-" if place else ""
            if place:
                add(f"--{before}media-root", metavar="PLACE", help="the same (default: --media-root)")
            add(
                f"--{before}media-name",
                metavar="TEMPLATE",
                help=f"name of a medium below that root (default: '{template.replace('%', '%%')}')",
            )
        add(
            "--check-media", action="store_true", help="leave out rows whose medium is missing, and list them"
        )
        add("--decode", type=int, default=0, metavar="N", help="decode a sample of N media and list failures")
        if corpus.modality == "image":
            add("--base64", action="store_true", help="write images into the tables (default: their paths)")
        if any(table.shuffled for table in corpus.tables):
            add("--shuffles", type=int, default=10, help="shuffled training tables _1 to _N (default: 10)")
        if corpus.hold_out:
            add(
                "--hold-out",
                type=int,
                default=corpus.hold_out,
                help="training media that become the validation split, where there is no official one "
                f"(default: {corpus.hold_out})",
            )
        if corpus.answers:
            rule = corpus.answers
            add(
                "--min-answer-count",
                type=int,
                default=rule.min_count,
                help=f"the answer list holds what is the best answer this often (default: {rule.min_count})",
            )
            add(
                "--max-answers",
                type=int,
                default=rule.max_answers,
                help=f"longest answer list; 0: no limit (default: {rule.max_answers})",
            )
        if not corpus.numbered and any(table.layout == "pretrain" for table in corpus.tables):
            add(
                "--exclude",
                nargs="+",
                default=[],
                metavar="TABLE",
                help="prepared TSV tables whose media stay out of the pretraining table",
            )
    sub = parsers.add_parser(
        PRETRAIN,
        help="merge the parts of all prepared corpora",
        description="Pretraining tables and negatives.",
    )
    _common(sub)
    sub.add_argument(
        "--min-object-count", type=int, default=1, help="object names seen this often (default: 1)"
    )


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the tables go (default: ofa below the data root)"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="every shuffle and choice follows from it (default: 7)"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare and print the report; 1 when media of the decoded sample are broken."""
    from unival.core import paths
    from unival.datatools.corpora import get_corpus
    from unival.datatools.corpora.pretrain import merge
    from unival.datatools.corpora.run import Settings, prepare

    base = paths.root("UNIVAL_DATA")
    out = Path(args.out) if args.out else base / "ofa"
    check_folder(out)
    if args.corpus == PRETRAIN:
        report = merge(out, args.seed, args.min_object_count)
    else:
        corpus = get_corpus(args.corpus)
        values = {name.replace("_", "-"): value for name, value in vars(args).items()}
        files = {s.name: values[s.name] for s in corpus.sources if values[s.name]}
        if not args.annotations and not files:
            raise ConfigError(
                f"where are the official files of {corpus.title}? Give their folder with --annotations"
            )
        report = prepare(
            corpus,
            Settings(
                annotations=Path(args.annotations or "."),
                out=out,
                base=base,
                media_root=Path(args.media_root) if args.media_root else None,
                media_name=args.media_name,
                roots={n: Path(place) for n in corpus.roots if (place := values[f"{n}-media-root"])},
                names={n: name for n in corpus.roots if (name := values[f"{n}-media-name"])},
                files=files,
                options={o.name: values[o.name] for o in corpus.options},
                check_media=args.check_media,
                embed=values.get("base64", False),
                decode=args.decode,
                shuffles=values.get("shuffles", 1),
                seed=args.seed,
                hold_out=values.get("hold-out"),
                min_answer_count=values.get("min-answer-count"),
                max_answers=values.get("max-answers"),
                exclude=tuple(values.get("exclude", ())),
            ),
            progress=lambda count: print(f"{count} records", file=sys.stderr, flush=True),
        )
    for line in report.lines():
        print(line)
    print(f"written below {out}; the report: {out / 'reports' / report.corpus}.json")
    return 1 if report.undecodable else 0
