"""``unival data codes SOURCE --out FILE``: pictures to image codes."""

from __future__ import annotations

import argparse

from unival.core.device import device_named
from unival.core.files import check_file
from unival.errors import ConfigError
from unival.imagegen.options import ImageGenOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where pictures come from, what encodes them, and how the work is shared."""
    defaults = ImageGenOptions()
    add = parser.add_argument
    add("source", help="folder of pictures, or a table (description) with columns image and caption")
    add("--out", required=True, metavar="FILE", help="TSV to write: uniq-id, codes, caption")
    add("--vqgan-model-path", required=True, help="VQGAN weights: released, or of 'unival data codebook'")
    add("--vqgan-config-path", help="YAML with the VQGAN's sizes, where the weights do not say")
    add("--code-image-size", type=int, default=defaults.code_image_size, help="side in pixels (%(default)s)")
    add("--selected-cols", help="columns of a headerless TSV: id, image, caption")
    add("--image-dir", help="folder or .tar that relative media paths start from")
    add("--batch-size", type=int, default=16)
    add("--num-workers", type=int, default=0)
    add("--shard", type=int, help="encode only this of --num-shards shares, write no table")
    add("--num-shards", type=int, default=1)
    add("--device", help="cpu, cuda, cuda:1 (default: a GPU when there is one)")
    add("--max-broken-share", type=float, default=0.01, help="unreadable pictures left out (%(default)s)")
    add(
        "--shuffles",
        type=int,
        default=0,
        help="write NAME_1 to NAME_N, each in an order of its own (%(default)s)",
    )
    add("--seed", type=int, default=7, help="the orders of --shuffles follow from it (%(default)s)")
    add("--restart", action="store_true", help="discard what an earlier run to --out has done")


def run(args: argparse.Namespace) -> int:
    """Encode, write, and list what could not be read."""
    import sys

    from tqdm import tqdm

    from unival.datatools.codes import CodeTable, Pictures
    from unival.imagegen.grid import grid_side
    from unival.imagegen.weights import load_vqgan
    from unival.metrics.images import file_hash

    check_file(args.out)
    grid_side(args.code_image_size)
    if args.shuffles < 0:
        raise ConfigError(
            f"--shuffles is {args.shuffles}; 0 writes one table in order, N writes N shuffled ones"
        )
    vqgan, report = load_vqgan(args.vqgan_model_path, args.vqgan_config_path)
    if report.unexpected:
        print(f"{args.vqgan_model_path}: {report}")
    device = device_named(args.device)
    pictures = Pictures(args.source, args.selected_cols, args.image_dir)
    identity = {"source": str(args.source), "vqgan_sha256": file_hash(args.vqgan_model_path)}
    table = CodeTable(pictures, args.out, args.code_image_size, identity)
    if args.restart:
        table.restart()
    table.encode(
        vqgan.to(device),
        args.batch_size,
        args.num_workers,
        args.shard or 0,
        args.num_shards,
        lambda batches: tqdm(batches, desc="encode", unit="batch", mininterval=1.0),
    )
    if args.shard is not None:
        return 0
    result = table.finish(args.max_broken_share, args.shuffles, args.seed)
    for line in result["unreadable"]:
        print(f"left out: {line}", file=sys.stderr)
    numbered = f", as {args.shuffles} shuffled tables _1 to _{args.shuffles}" if args.shuffles else ""
    print(f"{args.out}{numbered}: {result['rows']} rows, {len(result['unreadable'])} pictures unreadable")
    return 0
