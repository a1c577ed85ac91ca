"""The same command as ``unival data prepare refcoco``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "refcoco", *sys.argv[1:]]))
