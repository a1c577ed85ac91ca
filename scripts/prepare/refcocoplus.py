"""The same command as ``unival data prepare refcocoplus``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "refcocoplus", *sys.argv[1:]]))
