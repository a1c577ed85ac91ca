"""The same command as ``unival data prepare pretrain``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "pretrain", *sys.argv[1:]]))
