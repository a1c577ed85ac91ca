"""The same command as ``unival data prepare image_gen``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "image_gen", *sys.argv[1:]]))
