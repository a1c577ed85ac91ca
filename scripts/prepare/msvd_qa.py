"""The same command as ``unival data prepare msvd_qa``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "msvd_qa", *sys.argv[1:]]))
