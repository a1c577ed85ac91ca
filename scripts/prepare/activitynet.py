"""The same command as ``unival data prepare activitynet``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "activitynet", *sys.argv[1:]]))
