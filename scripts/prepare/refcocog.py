"""The same command as ``unival data prepare refcocog``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "refcocog", *sys.argv[1:]]))
