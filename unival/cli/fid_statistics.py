"""``unival data fid-statistics SOURCE --out FILE``: what FID compares generated pictures with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unival.core.device import device_named
from unival.core.files import check_file, write_text
from unival.errors import ConfigError, DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the pictures, the network and the file."""
    add = parser.add_argument
    add(
        "source", help="folder of pictures, or a table (description) with the column image, each picture once"
    )
    add(
        "--out",
        required=True,
        metavar="FILE",
        help=".npz to write: mu, sigma; beside it FILE.json says of what",
    )
    add("--inception-model-path", required=True, help="weights of torch-fidelity's Inception network")
    add("--selected-cols", help="columns of a headerless TSV: id, image, caption")
    add("--image-dir", help="folder or .tar that relative media paths start from")
    add("--batch-size", type=int, default=32)
    add("--device", help="cpu, cuda, cuda:1 (default: a GPU when there is one)")
    add("--max-broken-share", type=float, default=0.0, help="unreadable pictures left out (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Read the pictures, write the statistics, list what could not be read."""
    import sys

    from unival.datatools.codes import Pictures
    from unival.metrics.images import feature_statistics, write_statistics
    from unival.metrics.inception import InceptionScorer

    if not 0 <= args.max_broken_share < 1:
        raise ConfigError(f"--max-broken-share is {args.max_broken_share}; give a share from 0 to below 1")
    check_file(args.out)
    pictures = Pictures(args.source, args.selected_cols, args.image_dir)
    device = device_named(args.device)
    scorer = InceptionScorer(args.inception_model_path, device=device, batch_size=args.batch_size)
    broken: list[str] = []
    features = scorer.features(readable(pictures, broken, args.max_broken_share)).features
    if len(features) < 2:
        raise DataError(f"statistics need at least 2 pictures; {len(features)} can be read", path=args.source)
    write_statistics(args.out, *feature_statistics(features))
    about = {"source": args.source, "pictures": len(features), "unreadable": broken, **scorer.info}
    write_text(Path(f"{args.out}.json"), json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    for line in broken:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{args.out}: statistics of {len(features)} pictures")
    return 0


def readable(pictures: Any, broken: list[str], share: float) -> Iterator[Any]:
    """Yield the pictures one after the other; those that cannot be read are noted, too many are an error."""
    from tqdm import tqdm

    from unival.media import MediaError

    for picture in tqdm(pictures, desc="pictures", unit="picture", mininterval=1.0):
        try:
            yield pictures.media.image(picture.reference)
        except MediaError as error:
            broken.append(f"{picture.place}: {error}")
            if len(broken) > share * len(pictures):
                raise DataError(
                    f"{len(broken)} of {len(pictures)} pictures cannot be read, the last: {broken[-1]}. Mend them, or "
                    "leave them out with a higher --max-broken-share"
                ) from error
