"""``python -m unival``."""

import sys

from unival.cli import main
from unival.core.children import follow_starter

if __name__ == "__main__":
    follow_starter()
    sys.exit(main())
