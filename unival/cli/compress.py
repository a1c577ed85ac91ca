"""``unival data compress MEDIA OUT``: small videos and plain sounds from large ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unival.core.files import check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to keep and how small; the defaults are those of ``Compression``."""
    from unival.datatools.transcode import KEEP, Compression

    default = Compression()
    parser.add_argument("media", metavar="MEDIA", help="folder with videos or sounds, searched through")
    parser.add_argument("out", metavar="OUT", help="folder for the results; files that are there stay")
    parser.add_argument(
        "--keep",
        choices=KEEP,
        default=default.keep,
        help=f"MP4 without or with sound, or the sound alone as 48 kHz mono WAV (default: {default.keep})",
    )
    parser.add_argument(
        "--side", type=int, default=default.side, help=f"shorter side in pixels (default: {default.side})"
    )
    parser.add_argument(
        "--fps", type=float, default=default.fps, help=f"frames a second (default: {default.fps:g})"
    )
    parser.add_argument(
        "--crf", type=int, default=default.crf, help=f"H.264 quality, 0 to 51 (default: {default.crf})"
    )
    parser.add_argument(
        "--segments",
        metavar="JSONL",
        help="cut these segments (written by 'unival data prepare activitynet')",
    )
    parser.add_argument("--processes", type=int, default=1, help="files at the same time (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Compress and say what came out; 1 when some files failed."""
    from unival.datatools.compress import FAILED, compress_all, folder_jobs, segment_jobs
    from unival.datatools.transcode import Compression

    how = Compression(args.keep, args.side, args.fps, args.crf)
    check_folder(args.out)
    media, out = Path(args.media), Path(args.out)
    jobs = segment_jobs(media, Path(args.segments), how) if args.segments else folder_jobs(media, how)

    def progress(done: int, total: int) -> None:
        if done % 100 == 0:
            print(f"{done} of {total}", file=sys.stderr, flush=True)

    made, there, failed = compress_all(jobs, out, how, args.processes, progress)
    print(f"{out}: {made} made, {there} already there, {len(failed)} failed")
    for target, reason in list(failed.items())[:5]:
        print(f"  {target}: {reason}")
    if failed:
        print(f"all failures: {out / FAILED}")
    return 1 if failed else 0
