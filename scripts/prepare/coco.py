"""The same command as ``unival data prepare coco``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "coco", *sys.argv[1:]]))
