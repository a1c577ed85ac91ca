"""The same command as ``unival data prepare gqa``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "gqa", *sys.argv[1:]]))
