"""``python -m unival``."""

import sys

from unival.cli import main

if __name__ == "__main__":
    sys.exit(main())
