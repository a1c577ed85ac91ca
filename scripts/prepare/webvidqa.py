"""The same command as ``unival data prepare webvidqa``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "webvidqa", *sys.argv[1:]]))
