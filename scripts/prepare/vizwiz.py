"""The same command as ``unival data prepare vizwiz``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "vizwiz", *sys.argv[1:]]))
