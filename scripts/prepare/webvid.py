"""The same command as ``unival data prepare webvid``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "webvid", *sys.argv[1:]]))
