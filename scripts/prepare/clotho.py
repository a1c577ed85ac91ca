"""The same command as ``unival data prepare clotho``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "clotho", *sys.argv[1:]]))
