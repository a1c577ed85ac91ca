"""The same command as ``unival data prepare nocaps``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "nocaps", *sys.argv[1:]]))
