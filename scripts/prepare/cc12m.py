"""The same command as ``unival data prepare cc12m``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "cc12m", *sys.argv[1:]]))
