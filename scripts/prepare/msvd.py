"""The same command as ``unival data prepare msvd``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "msvd", *sys.argv[1:]]))
