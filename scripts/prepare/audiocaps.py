"""The same command as ``unival data prepare audiocaps``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "audiocaps", *sys.argv[1:]]))
