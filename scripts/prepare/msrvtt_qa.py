"""The same command as ``unival data prepare msrvtt_qa``."""

import sys

from unival.cli import main

sys.exit(main(["data", "prepare", "msrvtt_qa", *sys.argv[1:]]))
