"""The same command as ``unival data prepare okvqa``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "okvqa", *sys.argv[1:]]))
