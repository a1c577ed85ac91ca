"""The same command as ``unival data prepare vqa``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "vqa", *sys.argv[1:]]))
