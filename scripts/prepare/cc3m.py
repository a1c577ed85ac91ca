"""The same command as ``unival data prepare cc3m``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "cc3m", *sys.argv[1:]]))
