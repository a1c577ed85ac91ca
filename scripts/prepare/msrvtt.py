"""The same command as ``unival data prepare msrvtt``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "msrvtt", *sys.argv[1:]]))
