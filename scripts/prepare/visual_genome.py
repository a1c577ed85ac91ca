"""The same command as ``unival data prepare visual_genome``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "visual_genome", *sys.argv[1:]]))
