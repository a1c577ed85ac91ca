"""The same command as ``unival data prepare sbu``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "sbu", *sys.argv[1:]]))
