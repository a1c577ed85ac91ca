"""The same command as ``unival data prepare snli_ve``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "snli_ve", *sys.argv[1:]]))
